//! Walks a body's structure without decoding it: no recursion, no allocation, text and binary skipped.

use super::BodyError;
use crate::limits::{BODY_DEPTH, BODY_ELEMENTS};

/// Checks a body that is decoded to a type, which itself says how much it takes.
pub(super) fn typed(body: &[u8]) -> Result<(), BodyError> {
    Walk { body, at: 0, elements: usize::MAX, text: false }.all()
}

/// Checks a body that is decoded to a dynamic value: the number of its elements, and that its text is UTF-8.
pub(super) fn dynamic(body: &[u8]) -> Result<(), BodyError> {
    Walk { body, at: 0, elements: BODY_ELEMENTS, text: true }.all()
}

/// What begins with a marker, in words.
pub(super) fn kind(marker: u8) -> &'static str {
    match marker {
        0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => "a whole number",
        0x80..=0x8f | 0xde | 0xdf => "a map",
        0x90..=0x9f | 0xdc | 0xdd => "an array",
        0xa0..=0xbf | 0xd9..=0xdb => "text",
        0xc0 => "nil",
        0xc1 => "nothing",
        0xc2 | 0xc3 => "a truth value",
        0xc4..=0xc6 => "bytes",
        0xc7..=0xc9 | 0xd4..=0xd8 => "an extension",
        0xca | 0xcb => "a floating-point number",
    }
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    /// Elements that may still come.
    elements: usize,
    /// Whether text is checked.
    text: bool,
}

impl Walk<'_> {
    fn all(mut self) -> Result<(), BodyError> {
        // Elements still missing in each open array or map.
        let mut missing = [0u64; BODY_DEPTH];
        let mut depth = 0;
        loop {
            let inside = self.element()?;
            if let Some(inside) = inside {
                let level = missing.get_mut(depth).ok_or(BodyError::TooDeep)?;
                *level = inside;
                depth += 1;
            }
            while depth > 0 && missing[depth - 1] == 0 {
                depth -= 1;
            }
            if depth == 0 {
                break;
            }
            missing[depth - 1] -= 1;
        }
        match self.body.len() - self.at {
            0 => Ok(()),
            rest => Err(BodyError::Trailing(rest)),
        }
    }

    /// Passes one element, of an array or map its head only, whose number of elements is returned.
    fn element(&mut self) -> Result<Option<u64>, BodyError> {
        self.elements =
            self.elements.checked_sub(1).ok_or(BodyError::TooManyElements { limit: BODY_ELEMENTS })?;
        let start = self.at;
        let marker = self.take(1)?[0];
        match marker {
            // Small integers, nil, booleans.
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => {}
            0x80..=0x8f => return self.container(u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => return self.container(u64::from(marker & 0x0f)),
            0xa0..=0xbf => self.string(usize::from(marker & 0x1f))?,
            0xc1 => return Err(BodyError::Malformed { at: start, what: "a byte that starts nothing" }),
            0xc4..=0xc6 => {
                let len = self.number(1 << (marker - 0xc4))?;
                self.take(len as usize)?;
            }
            // An extension's type is one byte before its data.
            0xc7..=0xc9 => {
                let len = self.number(1 << (marker - 0xc7))?;
                self.take(len as usize + 1)?;
            }
            0xd4..=0xd8 => {
                self.take((1 << (marker - 0xd4)) + 1)?;
            }
            0xca | 0xce | 0xd2 => {
                self.take(4)?;
            }
            0xcb | 0xcf | 0xd3 => {
                self.take(8)?;
            }
            0xcc | 0xd0 => {
                self.take(1)?;
            }
            0xcd | 0xd1 => {
                self.take(2)?;
            }
            0xd9..=0xdb => {
                let len = self.number(1 << (marker - 0xd9))?;
                self.string(len as usize)?;
            }
            0xdc | 0xdd => {
                let len = self.number(2 << (marker - 0xdc))?;
                return self.container(len);
            }
            0xde | 0xdf => {
                let len = self.number(2 << (marker - 0xde))?;
                return self.container(len * 2);
            }
        }
        Ok(None)
    }

    /// Each element is a byte at least, so more than there are bytes is refused before anybody allocates.
    fn container(&self, elements: u64) -> Result<Option<u64>, BodyError> {
        if elements > self.elements as u64 {
            return Err(BodyError::TooManyElements { limit: BODY_ELEMENTS });
        }
        if elements > (self.body.len() - self.at) as u64 {
            return Err(BodyError::Malformed { at: self.at, what: "fewer elements than announced" });
        }
        Ok(Some(elements))
    }

    fn string(&mut self, len: usize) -> Result<(), BodyError> {
        let (at, checked) = (self.at, self.text);
        let text = self.take(len)?;
        if checked && std::str::from_utf8(text).is_err() {
            return Err(BodyError::Malformed { at, what: "text that is not UTF-8" });
        }
        Ok(())
    }

    /// A big-endian number of 1, 2 or 4 bytes.
    fn number(&mut self, len: usize) -> Result<u64, BodyError> {
        Ok(self.take(len)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn take(&mut self, len: usize) -> Result<&[u8], BodyError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.body.len());
        let end = end.ok_or(BodyError::Malformed { at: self.body.len(), what: "the end comes early" })?;
        let taken = &self.body[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

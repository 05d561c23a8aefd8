//! The stream of records on a link, and the frames in them.

use std::collections::VecDeque;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::records::{LENGTH_BYTES, Opener, RecordKeys, Sealer, record_length};
use parlor_protocol::wire::peer::{Head, RecordHeader, next_frame};
use zeroize::Zeroizing;

use crate::Verdict;

const CIPHERS: [Cipher; 3] = [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext];
/// Records that a script sends at most, and things that befall them.
const RECORDS: usize = 8;

/// Foo seals what the script says; then the script changes, drops, repeats, swaps, cuts, sends back and puts in
/// records. Bar opens what was sealed, in order, up to the first that was touched, and nothing else: with a cipher.
/// Without one Bar reads any bytes.
pub fn records(data: &[u8]) -> Verdict {
    let mut script = Unstructured::new(data);
    Verdict::accepted_if(stream(&mut script).unwrap_or(false))
}

fn stream(script: &mut Unstructured<'_>) -> Result<bool> {
    let cipher = *script.choose(&CIPHERS)?;
    let (Some((mut foo, _)), Some((mut back, mut bar))) = (ends([1, 2], cipher), ends([2, 1], cipher)) else {
        return Ok(false);
    };
    let edits: Vec<(u8, u8, u16)> =
        (0..script.int_in_range(0..=RECORDS)?).map(|_| script.arbitrary()).collect::<Result<_>>()?;
    let rekey_after = script.int_in_range(0..=2 * RECORDS)?;
    let count = script.int_in_range(1..=RECORDS)?;
    let (mut sealed, mut sent) = (Vec::new(), Vec::new());
    for number in 0..count {
        let length = script.int_in_range(1..=script.len().max(1))?.min(script.len());
        let plaintext =
            if number + 1 == count { script.bytes(script.len())? } else { script.bytes(length)? };
        let mut record = [&[0; LENGTH_BYTES], plaintext].concat();
        if foo.seal(&mut record, 0).is_err() {
            assert!(plaintext.is_empty() && record.is_empty());
            continue;
        }
        sealed.push(record);
        sent.push(plaintext.to_vec());
        if sent.len() == rekey_after {
            assert_eq!(foo.rekey(), Ok(()));
        }
    }
    let untouched = sealed.clone();
    for edit in edits {
        befall(&mut sealed, edit, &mut back);
    }
    let opened = open_all(&sealed.concat(), cipher, rekey_after, &mut bar);
    if cipher != Cipher::Cleartext {
        assert!(sent.starts_with(&opened), "Bar read what Foo did not say");
        let whole = sealed.iter().zip(&untouched).take_while(|(now, then)| now == then).count();
        assert!(opened.len() >= whole, "Bar did not read what nobody had touched");
    }
    let mut understood = false;
    for plaintext in opened {
        understood |= frames(&Bytes::from(plaintext));
    }
    Ok(understood)
}

fn ends([send, recv]: [u8; 2], cipher: Cipher) -> Option<(Sealer, Opener)> {
    RecordKeys::new(Zeroizing::new([send; 32]), Zeroizing::new([recv; 32]), cipher).split().ok()
}

/// Something happens on the way.
fn befall(records: &mut Vec<Vec<u8>>, (what, which, how): (u8, u8, u16), back: &mut Sealer) {
    let count = records.len();
    if count == 0 {
        return;
    }
    let (which, how) = (usize::from(which) % count, usize::from(how));
    match what % 7 {
        0 => {
            let at = how / 8 % records[which].len().max(1);
            if let Some(byte) = records[which].get_mut(at) {
                *byte ^= 1 << (how % 8);
            }
        }
        1 => drop(records.remove(which)),
        2 => records.insert(which, records[how % count].clone()),
        3 => records.swap(which, how % count),
        4 => {
            let length = records[which].len();
            records[which].truncate(how % (length + 1));
        }
        5 => {
            let mut reflected = b"\0\0from Bar".to_vec();
            let _ = back.seal(&mut reflected, 0);
            records.insert(which, reflected);
        }
        _ => records.insert(which, how.to_le_bytes().to_vec()),
    }
}

/// As a link's reading task does: length, record, until one does not open.
fn open_all(stream: &[u8], cipher: Cipher, rekey_after: usize, bar: &mut Opener) -> Vec<Vec<u8>> {
    let (mut rest, mut opened) = (VecDeque::from(stream.to_vec()), Vec::new());
    while rest.len() >= LENGTH_BYTES {
        let prefix = [rest[0], rest[1]];
        let Ok(length) = record_length(prefix, cipher) else { break };
        if rest.len() < LENGTH_BYTES + length {
            break;
        }
        let mut record: Vec<u8> = rest.drain(..LENGTH_BYTES + length).skip(LENGTH_BYTES).collect();
        let Ok(plaintext) = bar.open(&mut record) else { break };
        record.truncate(plaintext);
        opened.push(record);
        if opened.len() == rekey_after && bar.rekey().is_err() {
            break;
        }
    }
    opened
}

/// Reads a record's plaintext. What is read is what would have been written.
pub(crate) fn frames(plaintext: &Bytes) -> bool {
    let Ok((header, mut at)) = RecordHeader::read(plaintext) else { return false };
    let mut written = Vec::new();
    header.write(&mut written);
    assert_eq!(written, plaintext[..at]);
    let mut any = false;
    while let Ok(Some(frame)) = next_frame(plaintext, at) {
        assert!(frame.payload.end > at && frame.payload.end <= plaintext.len());
        at = frame.payload.end;
        let whole = plaintext.slice(frame.payload);
        let mut body = whole.clone();
        if let Ok(head) = Head::read(frame.kind, &mut body) {
            let mut written = Vec::new();
            head.write(&mut written);
            assert_eq!((head.kind(), head.encoded_len()), (frame.kind, written.len()));
            assert_eq!([&written, &body[..]].concat(), whole);
        }
        any = true;
    }
    any
}

//! What a running process remembers: a search of all its readable memory for a byte string.
//!
//! The search reads `/proc/PID/mem` while the process runs, so a hit is certain and a miss is a statement
//! about that moment; search several times, and prove with a string known to be there that the search works.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;

/// Outcome of a search.
#[derive(Debug, Default)]
pub struct Search {
    /// Where it was found: the mapping's name and the address.
    pub hits: Vec<(String, u64)>,
    /// How many bytes were searched.
    pub searched: u64,
    /// Mappings that could not be read, as the kernel names them.
    pub unreadable: Vec<String>,
}

impl Search {
    /// True if the bytes were found in a mapping of this name, such as `[heap]` or `[stack]`.
    pub fn found_in(&self, mapping: &str) -> bool {
        self.hits.iter().any(|(name, _)| name == mapping)
    }
}

/// Searches all readable memory of process `pid` for `needle`. Needs the right to trace it.
pub fn search(pid: u32, needle: &[u8]) -> Result<Search> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("reading the memory map")?;
    let memory = File::open(format!("/proc/{pid}/mem")).context("opening the memory")?;
    let mut search = Search::default();
    for mapping in maps.lines().filter_map(Mapping::parse) {
        // These belong to the kernel and cannot be read through the file.
        if matches!(mapping.name, "[vvar]" | "[vvar_vclock]" | "[vsyscall]") {
            continue;
        }
        search_mapping(&memory, &mapping, needle, &mut search);
    }
    Ok(search)
}

/// Where `needle` begins in `hay`.
pub fn positions<'a>(hay: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = needle.first().copied();
    let starts = hay.iter().enumerate().filter(move |&(_, byte)| Some(*byte) == first).map(|(at, _)| at);
    starts.filter(move |&at| hay[at..].starts_with(needle))
}

struct Mapping<'a> {
    start: u64,
    end: u64,
    name: &'a str,
}

impl<'a> Mapping<'a> {
    /// Reads a line of `/proc/PID/maps`: `start-end perms offset dev inode name`. `None` if it is not readable.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let readable = fields.next()?.starts_with('r');
        let name = fields.nth(3).unwrap_or("anonymous");
        let address = |text| u64::from_str_radix(text, 16).ok();
        readable.then_some(Self { start: address(start)?, end: address(end)?, name })
    }
}

fn search_mapping(memory: &File, mapping: &Mapping<'_>, needle: &[u8], search: &mut Search) {
    let overlap = needle.len().saturating_sub(1);
    let mut buffer = vec![0; CHUNK + overlap];
    let mut at = mapping.start;
    while at < mapping.end {
        let wanted = buffer.len().min(usize::try_from(mapping.end - at).unwrap_or(usize::MAX));
        let Ok(read @ 1..) = memory.read_at(&mut buffer[..wanted], at) else {
            search.unreadable.push(mapping.name.to_owned());
            return;
        };
        let hits =
            positions(&buffer[..read], needle).map(|offset| (mapping.name.to_owned(), at + offset as u64));
        search.hits.extend(hits);
        // The tail is read again with what follows it, so that a hit across the seam is seen.
        let step = if read > overlap && at + (read as u64) < mapping.end { read - overlap } else { read };
        search.searched += step as u64;
        at += step as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::process::Program;

    #[test]
    fn what_a_process_was_given_is_found_in_its_memory_and_what_it_was_not_is_not() {
        let mut command = Command::new("sh");
        let known = "control-".to_owned() + "7c1f9a";
        command.args(["-c", "echo up; read x"]).env("CONTROL", &known);
        let mut program = Program::start(command).unwrap();
        program.line(Duration::from_secs(10)).unwrap();
        let found = search(program.pid(), known.as_bytes()).unwrap();
        assert!(found.found_in("[stack]"), "{found:?}");
        assert!(found.searched > 100_000, "{found:?}");
        let never = "never-".to_owned() + "7c1f9a";
        assert_eq!(search(program.pid(), never.as_bytes()).unwrap().hits, []);
    }

    #[test]
    fn every_position_is_found_also_overlapping_ones() {
        assert_eq!(positions(b"aabaaa", b"aa").collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!(positions(b"abc", b"abcd").count(), 0);
    }
}

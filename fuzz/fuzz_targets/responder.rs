//! Runs the target `responder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    parlor_fuzz_targets::responder(data);
});

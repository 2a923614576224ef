#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| openid_deferred::fuzzing::logout_token(input));

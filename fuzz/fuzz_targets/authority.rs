#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ssm_gateway_fuzz::authority(bytes));

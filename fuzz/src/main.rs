//! libFuzzer runs one target, which the variable `FUZZ_TARGET` names; see `make fuzz`.

#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;

static TARGET: LazyLock<(targets::Target, u32)> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("the variable FUZZ_TARGET names a target");
    let found = targets::TARGETS.into_iter().find(|(known, ..)| *known == name).expect("a target of this name");
    (found.1, found.2)
});

// The sanitizer makes everything slower.
fuzz_target!(|data: &[u8]| targets::bounded(TARGET.0, data, TARGET.1, Duration::from_secs(3)));

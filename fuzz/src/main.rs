//! libFuzzer runs one target, which the variable `FUZZ_TARGET` names; see `make fuzz`.

#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("the variable FUZZ_TARGET names a target");
    targets::TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target of this name").1
});

// The sanitizer makes everything slower.
fuzz_target!(|data: &[u8]| targets::bounded(*TARGET, data, Duration::from_secs(3)));

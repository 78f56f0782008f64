//! The clock: what time it is, and how long something took. WebAssembly alone has none: there time stands still, every
//! duration is zero, and it is 1970. So nothing on the way of a pass may wait for time to go by.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod ticking {
    use jiff::{Timestamp, Zoned};
    pub use std::time::Instant;

    /// The time now.
    pub fn utc() -> Timestamp {
        Timestamp::now()
    }

    /// The time now where the machine stands.
    pub fn local() -> Zoned {
        Zoned::now()
    }
}

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod standing {
    use jiff::{Timestamp, Zoned, tz::TimeZone};
    use std::ops::{Add, Sub};
    use std::time::Duration;

    /// What of `std::time::Instant` is used, for which time stands still.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(Duration);

    impl Instant {
        /// The one moment that there is.
        pub fn now() -> Instant {
            Instant(Duration::ZERO)
        }

        /// The time since then: none.
        pub fn elapsed(self) -> Duration {
            Instant::now() - self
        }

        /// The time from `earlier` to this moment; `None` if it is later.
        pub fn checked_duration_since(self, earlier: Instant) -> Option<Duration> {
            self.0.checked_sub(earlier.0)
        }
    }

    impl Sub for Instant {
        type Output = Duration;
        fn sub(self, earlier: Instant) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Instant;
        fn add(self, duration: Duration) -> Instant {
            Instant(self.0 + duration)
        }
    }

    /// The clock for the crate `instant`, which a dependency uses in place of `std::time`; in milliseconds.
    // SAFETY: no other symbol of the program has this name, which `instant` gives to the clock of its host.
    #[unsafe(no_mangle)]
    extern "C" fn now() -> f64 {
        0.0
    }

    /// The beginning of 1970.
    pub fn utc() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// The beginning of 1970, in UTC.
    pub fn local() -> Zoned {
        utc().to_zoned(TimeZone::UTC)
    }
}

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use standing::{Instant, local, utc};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use ticking::{Instant, local, utc};

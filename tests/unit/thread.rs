use super::*;

/// A stack that no address space holds.
const IMPOSSIBLE: usize = usize::MAX / 4;

#[test]
#[cfg_attr(miri, ignore = "Miri does not refuse")]
fn a_refused_thread_is_an_error_that_says_what_to_do() {
    let error = on_stack("a", IMPOSSIBLE, &mut || false, |_| 1).expect_err("no thread").to_string();
    assert!(error.starts_with("could not start the thread 'a' ("), "{error}");
    assert!(error.contains("ulimit -u") && error.contains("n_threads"), "{error}");
    assert_eq!(on_stack("a", 1 << 20, &mut || false, |_| 1).expect("a thread"), 1);
    assert_eq!(spawn("a", || 1).expect("a thread").join().expect("no panic"), 1);
}

#[test]
fn a_panic_goes_on_in_the_caller() {
    let panic =
        std::panic::catch_unwind(|| on_stack("a", 1 << 20, &mut || false, |_| panic!("of the work")).map(|(): ()| ()));
    assert_eq!(*panic.expect_err("a panic").downcast::<&str>().expect("its text"), "of the work");
}

#[test]
fn a_watch_cancels_the_work() {
    let wait = |cancelled: &Arc<AtomicBool>| {
        while !cancelled.load(Relaxed) {
            std::thread::yield_now();
        }
    };
    let error = on_stack("a", 1 << 20, &mut || true, wait).expect_err("cancelled");
    assert!(matches!(error, Error::Cancelled), "{error}");
}

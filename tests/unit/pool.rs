use super::*;

#[test]
#[should_panic(expected = "cannot start another loop")]
fn a_task_cannot_start_another_loop() {
    let pool = Pool::new(2).expect("two threads");
    pool.run(|workers| workers.for_each(2, |_| workers.for_each(2, |_| {})));
}

#[test]
fn the_next_loop_runs_after_both_threads_panicked() {
    let pool = Pool::new(2).expect("two threads");
    let nested = || pool.run(|workers| workers.for_each(2, |_| workers.for_each(2, |_| {})));
    assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
    let count = AtomicUsize::new(0);
    pool.run(|workers| workers.for_each(100, |_| _ = count.fetch_add(1, Relaxed)));
    assert_eq!(count.into_inner(), 100);
}

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

#[test]
fn callers_run_in_the_order_of_their_arrival() {
    let pool = Pool::new(2).expect("two threads");
    let waiting = || lock(&pool.state.queue).waiting.len();
    let (order, open) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        for i in 0..20 {
            let (pool, order, open) = (&pool, &order, &open);
            scope.spawn(move || {
                pool.run(|_| {
                    while !open.load(Relaxed) {
                        thread::yield_now(); // the first job runs until all others wait
                    }
                    lock(order).push(i);
                });
            });
            while waiting() <= i {
                thread::yield_now();
            }
        }
        open.store(true, Relaxed);
    });
    assert_eq!(order.into_inner().expect("no panic"), Vec::from_iter(0..20));
}

#[test]
fn a_caller_that_gives_up_leaves_the_queue() {
    let pool = Pool::new(2).expect("two threads");
    let open = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(|_| {
                while !open.load(Relaxed) {
                    thread::yield_now();
                }
            });
        });
        while lock(&pool.state.queue).waiting.is_empty() {
            thread::yield_now();
        }
        assert_eq!(pool.run_watched(|_| 1, || true), None);
        let panics = catch_unwind(AssertUnwindSafe(|| pool.run_watched(|_| 1, || panic!("the watch"))));
        assert!(panics.is_err());
        assert_eq!(lock(&pool.state.queue).waiting.len(), 1);
        open.store(true, Relaxed);
    });
    assert_eq!(pool.run(|_| 2), 2);
}

/// As in WebAssembly, where no thread can be started.
#[test]
fn a_pool_without_threads_runs_jobs_on_their_callers() {
    let (pool, caller) = (Pool::empty(1), thread::current().id());
    let count = AtomicUsize::new(0);
    let ran_on = pool.run(|workers| {
        workers.for_each(100, |_| _ = count.fetch_add(1, Relaxed));
        thread::current().id()
    });
    assert_eq!((ran_on, count.into_inner()), (caller, 100));
    assert!(pool.run_watched(|_| panic!("it was cancelled"), || true).map(|(): ()| ()).is_none());
}

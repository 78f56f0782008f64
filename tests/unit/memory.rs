use super::*;

#[test]
fn buffers_begin_as_zeros_and_do_not_overlap() {
    let arena = Arena::default();
    let mut buffers: Vec<HugeBuf<f32>> = (1..5).map(|n| arena.try_zeroed(100 * n).expect("memory")).collect();
    for (i, buffer) in buffers.iter_mut().enumerate() {
        assert_eq!(buffer.len(), 100 * (i + 1));
        assert!(buffer.iter().all(|value| *value == 0.0));
        buffer.fill(i as f32 + 1.0);
    }
    let copy = buffers[3].try_clone().expect("memory");
    drop(arena);
    for (i, buffer) in buffers.iter().chain([&copy]).enumerate() {
        assert!(buffer.iter().all(|value| *value == i.min(3) as f32 + 1.0));
        assert!(buffer.as_ptr().cast::<u8>().align_offset(64) == 0);
    }
}

/// A conversation of a small model may keep many small buffers.
#[test]
fn small_buffers_do_not_take_huge_pages() {
    let small = HugeBuf::<f32>::try_zeroed(1000).expect("memory");
    assert_eq!((small.map.len(), small.len()), (4000, 1000));
    assert!(HugeBuf::<f32>::try_zeroed(0).expect("memory").is_empty());
}

/// Each map ends with a page that is in part unused: a model of many matrices has few maps.
#[test]
fn the_maps_of_an_arena_grow() {
    let arena = Arena::default();
    let buffers: Vec<HugeBuf<u64>> = (0..12).map(|_| arena.try_zeroed(3 << 20).expect("memory")).collect();
    let maps: std::collections::BTreeSet<_> = buffers.iter().map(|buffer| Arc::as_ptr(&buffer.map)).collect();
    assert!(maps.len() <= 5, "{} maps for 12 buffers", maps.len());
}

#[test]
fn vectors_begin_as_zeros_and_grow() {
    let mut buffer: Vec<u64> = try_zeroed(3).expect("memory");
    assert_eq!(buffer, [0; 3]);
    try_grow(&mut buffer, 2).expect("memory").fill(7);
    assert_eq!(buffer, [7, 7, 0]);
    assert_eq!(try_grow(&mut buffer, 5).expect("memory"), [0; 5]);
    assert!(try_zeroed::<u64>(0).expect("nothing").is_empty());
    assert!(try_with_capacity::<u64>(9).expect("memory").capacity() >= 9);
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let error = |result: Result<()>| matches!(result, Err(Error::Memory { .. }));
    for len in [usize::MAX / 8, usize::MAX / 4, usize::MAX] {
        assert!(error(try_with_capacity::<u64>(len).map(drop)));
        assert!(error(try_zeroed::<u64>(len).map(drop)));
        assert!(error(HugeBuf::<f32>::try_zeroed(len).map(drop)));
        assert!(error(Arena::default().try_zeroed::<f32>(len).map(drop)));
    }
}

use super::*;

#[test]
fn only_whole_values_inside_the_owner_are_mapped() {
    let owner: Owner = Arc::new(vec![255u8, 1, 2, 3]);
    let mapped = |range| Mapped::<i8>::new(owner.clone(), range).map(Buffer::Mapped);
    let buffer = mapped(0..3).expect("inside");
    assert_eq!((&*buffer, buffer.owned_bytes()), (&[-1i8, 1, 2][..], 0));
    assert!(mapped(2..5).is_none(), "past the end");
    #[expect(clippy::reversed_empty_ranges, reason = "a damaged file may say so")]
    let reversed = mapped(3..2);
    assert!(reversed.is_none());
}

#[test]
fn misaligned_values_are_refused() {
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Aligned([u8; 64]);
    // SAFETY: an array of bytes, for which every value is valid.
    unsafe impl Zeroable for Aligned {}
    // SAFETY: as above; its size is its alignment, so there is no padding.
    unsafe impl Plain for Aligned {}
    struct Bytes(Vec<Aligned>);
    impl AsRef<[u8]> for Bytes {
        fn as_ref(&self) -> &[u8] {
            &self.0[0].0
        }
    }
    let owner: Owner = Arc::new(Bytes(vec![Aligned([7; 64])]));
    assert_eq!(Mapped::<Aligned>::new(owner.clone(), 0..64).expect("aligned").get().expect("as before").len(), 1);
    assert!(Mapped::<Aligned>::new(owner.clone(), 0..63).is_none(), "not whole");
    assert!(Mapped::<Aligned>::new(owner, 1..64).is_none(), "not aligned");
}

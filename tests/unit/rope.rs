use super::*;

const PLAIN: RopeParams = RopeParams { style: RopeStyle::NeoX, dim: 128, base: 1e6, scaling: RopeScaling::NONE };
const BONSAI: Yarn = Yarn {
    factor: 4.0,
    original_context: 16384,
    beta_fast: 32.0,
    beta_slow: 1.0,
    extrapolation: 1.0,
    magnitude: 1.138_629,
};

fn frequencies(scaling: RopeScaling, divisors: Option<&[f32]>) -> Vec<f32> {
    Rope::new(&RopeParams { scaling, ..PLAIN }, 128, divisors).expect("valid").frequencies
}

/// Bonsai 8B: pairs up to 20 are kept, those from 37 on divided by 4, and the ramp between them is straight.
#[test]
fn yarn_keeps_high_frequencies_and_divides_low_ones() {
    let (plain, scaled) = (frequencies(RopeScaling::NONE, None), frequencies(RopeScaling::Yarn(BONSAI), None));
    for i in 0..64 {
        let ramp = ((i as f64 - 20.0) / 17.0).clamp(0.0, 1.0);
        let expected = plain[i] as f64 * (1.0 - ramp + ramp / 4.0);
        assert!((scaled[i] as f64 / expected - 1.0).abs() < 3e-7, "pair {i}: {} and {expected}", scaled[i]);
    }
    assert_eq!(scaled[..21], plain[..21]);
    assert_ne!(scaled[21], plain[21]);
}

#[test]
fn yarn_multiplies_cosines_and_sines() {
    let rope = Rope::new(&RopeParams { scaling: RopeScaling::Yarn(BONSAI), ..PLAIN }, 128, None).expect("valid");
    let CosSin { rows, cos, sin } = rope.cos_sin([0, 7].into_iter());
    assert_eq!(rows, 2);
    assert!(cos[..64].iter().all(|cos| *cos == BONSAI.magnitude) && sin[..64].iter().all(|sin| *sin == 0.0));
    assert_eq!(cos[64], 7f32.cos() * BONSAI.magnitude);
    for (cos, sin) in cos[64..].iter().zip(&sin[64..]) {
        assert!((cos.hypot(*sin) - BONSAI.magnitude).abs() < 1e-6);
    }
}

/// Without extrapolation every frequency is divided; a context in which no pair turns once keeps none.
#[test]
fn yarn_at_its_edges() {
    let divided: Vec<f32> = frequencies(RopeScaling::Linear { factor: 4.0 }, None);
    for yarn in [Yarn { extrapolation: 0.0, ..BONSAI }, Yarn { original_context: 1, ..BONSAI }] {
        let scaled = frequencies(RopeScaling::Yarn(yarn), None);
        // The first pair lies at the start of the ramp.
        for (scaled, divided) in scaled.iter().zip(&divided).skip(1) {
            assert!((scaled / divided - 1.0).abs() < 3e-7, "{yarn:?}");
        }
    }
    let all = Yarn { original_context: usize::MAX, ..BONSAI };
    assert_eq!(frequencies(RopeScaling::Yarn(all), None)[..60], frequencies(RopeScaling::NONE, None)[..60]);
}

#[test]
fn longrope_divides_each_frequency_by_its_own() {
    let divisors: Vec<f32> = (0..64).map(|i| 1.0 + i as f32 / 3.0).collect();
    let scaling = RopeScaling::LongRope { original_context: 32768, magnitude: 1.5 };
    let (plain, scaled) = (frequencies(RopeScaling::NONE, None), frequencies(scaling, Some(&divisors)));
    for i in 0..64 {
        assert!((scaled[i] * divisors[i] / plain[i] - 1.0).abs() < 3e-7);
    }
    assert_eq!(Rope::new(&RopeParams { scaling, ..PLAIN }, 128, Some(&divisors)).expect("valid").magnitude, 1.5);
}

#[test]
fn what_gives_no_frequency_is_refused() {
    let yarn = |change: fn(&mut Yarn)| {
        let mut yarn = BONSAI;
        change(&mut yarn);
        RopeScaling::Yarn(yarn)
    };
    let hostile = [
        (yarn(|yarn| yarn.factor = f32::MAX), 1e6, None),
        (RopeScaling::Linear { factor: f32::MAX }, f32::MAX, None),
        (RopeScaling::NONE, f32::MAX, Some([f32::MAX; 64])),
        (RopeScaling::LongRope { original_context: 1, magnitude: 1.0 }, 1e6, Some([0.0; 64])),
        (RopeScaling::LongRope { original_context: 1, magnitude: 1.0 }, 1e6, Some([-1.0; 64])),
    ];
    for (scaling, base, divisors) in hostile {
        let params = RopeParams { scaling, base, ..PLAIN };
        let error = Rope::new(&params, 128, divisors.as_ref().map(<[f32; 64]>::as_slice)).err().expect("refused");
        assert!(error.to_string().contains("rope.scaling"), "{error}");
    }
    // A base of 1 has no ramp: all pairs turn equally fast.
    let one = RopeParams { scaling: RopeScaling::Yarn(BONSAI), base: 1.0, ..PLAIN };
    if let Ok(rope) = Rope::new(&one, 128, None) {
        assert!(rope.frequencies.iter().all(|frequency| frequency.is_finite()));
    }
}

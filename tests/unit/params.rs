use super::*;

/// The list of a later version: one parameter more.
fn later() -> Vec<Parameter> {
    let copy = |known: &Parameter| Parameter { rules: known.rules, ..*known };
    let mut list: Vec<Parameter> = PARAMETERS.iter().map(copy).collect();
    list.push(Parameter {
        name: "pretend",
        help: "",
        default: "1.0",
        rules: Rules::above(0.0).at_most(1.0).since("0.2.0"),
    });
    list
}

/// What a later version writes for `params` and its new parameter.
fn written_later(params: &SamplingParams, pretend: f32) -> Map<String, Json> {
    let (list, defaults) = (later(), SamplingParams::default());
    let (mut values, mut default_values) = (params.values(), defaults.values());
    values.push(&pretend);
    default_values.push(&1f32);
    let fields = written(&list, &values, &default_values);
    fields.into_iter().map(|(parameter, value)| (parameter.name.to_string(), value)).collect()
}

fn some_params() -> SamplingParams {
    SamplingParams { temperature: 0.7, logit_bias: vec![(3, f32::NEG_INFINITY), (7, 1.25)], ..Default::default() }
}

/// So a stored receipt has the same claim, and the same digest, when a later version writes it again.
#[test]
fn a_later_parameter_at_its_default_changes_nothing_that_is_written() {
    for params in [SamplingParams::default(), some_params()] {
        let today: Map<String, Json> = params.written().into_iter().map(|(p, json)| (p.name.into(), json)).collect();
        let later = written_later(&params, 1.0);
        assert_eq!(serde_json::to_string(&later).unwrap(), serde_json::to_string(&today).unwrap());
    }
}

#[test]
fn a_later_parameter_that_is_not_at_its_default_is_written_last() {
    let fields = written_later(&some_params(), 0.5);
    assert_eq!(fields.keys().next_back().unwrap(), "pretend");
    assert_eq!(fields["pretend"], 0.5);
    assert_eq!(fields.len(), some_params().written().len() + 1);
}

#[test]
fn the_parameters_of_0_1_0_are_always_written() {
    let since: Vec<_> = PARAMETERS.iter().filter(|parameter| parameter.rules.since.is_none()).collect();
    assert_eq!(since.len(), 15, "a parameter that came later needs `since`");
    assert_eq!(SamplingParams::default().written().len(), 15, "a later parameter at its default is left out");
    let claim = SamplingParams::default().to_claim();
    assert_eq!(
        Json::from(claim).to_string(),
        "{\"temperature\":0.0,\"top_k\":0,\"top_p\":1.0,\"min_p\":0.0,\"repetition_penalty\":1.0,\"repeat_last_n\":64,\
         \"presence_penalty\":0.0,\"frequency_penalty\":0.0,\"logit_bias\":[],\"seed\":null,\"max_tokens\":null,\
         \"stop\":[],\"stop_token_ids\":[]}"
    );
}

#[test]
fn a_missing_field_means_the_default() {
    let given = serde_json::json!({"temperature": 0.7, "top_k": 5});
    let expected = SamplingParams { temperature: 0.7, top_k: 5, ..Default::default() };
    assert_eq!(SamplingParams::from_claim(given.as_object().unwrap()).unwrap(), expected);
    assert_eq!(serde_json::from_value::<SamplingParams>(given).unwrap(), expected);
}

#[test]
fn claims_and_files_give_the_parameters_back() {
    let params = SamplingParams {
        top_k: 3,
        seed: Some(u64::MAX),
        max_tokens: Some(9),
        stop: vec!["é".into(), "\n".into()],
        stop_token_ids: vec![5],
        ignore_eos: true,
        logprobs: Some(2),
        ..some_params()
    };
    let file = serde_json::to_string(&params).unwrap();
    let read: SamplingParams = serde_json::from_str(&file).unwrap();
    assert_eq!(read, SamplingParams { logit_bias: Vec::new(), ..params.clone() });
    // A claim says by its stop ids and by its ids what these two changed.
    let claimed = SamplingParams { ignore_eos: false, logprobs: None, ..params.clone() };
    assert_eq!(SamplingParams::from_claim(&params.to_claim()).unwrap(), claimed);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_by_name() {
    for (name, value) in [
        ("temperature", serde_json::json!("hot")),
        ("top_k", serde_json::json!(-1)),
        ("top_k", serde_json::json!(1.5)),
        ("seed", serde_json::json!("x")),
        ("stop", serde_json::json!("x")),
        ("stop_token_ids", serde_json::json!([-1])),
        ("logit_bias", serde_json::json!([[1, "much"]])),
    ] {
        let fields = Map::from_iter([(name.to_string(), value)]);
        let error = SamplingParams::from_claim(&fields).expect_err(name);
        assert!(error.starts_with(name), "{error}");
    }
    for unknown in ["temprature", "logit_bias"] {
        let error = serde_json::from_str::<SamplingParams>(&format!("{{{unknown:?}: 1}}")).expect_err(unknown);
        assert!(error.to_string().contains(unknown), "{error}");
    }
}

/// A count has the limits that its declaration, and so the JSON Schema, gives it.
#[test]
fn counts_are_checked_against_both_limits() {
    let message = |rules: Rules, n: usize| {
        let pretend = Parameter { name: "pretend", help: "", default: "0", rules };
        n.check(&pretend).err().map(|error| error.to_string())
    };
    let refused = |n: usize, expected: &str| Some(format!("pretend is {n}, expected {expected}"));
    let percent = Rules::at_least(0.0).at_most(100.0);
    assert_eq!(message(percent, 100), None);
    assert_eq!(message(percent, 101), refused(101, "0 to 100"));
    assert_eq!(message(Rules::at_least(2.0), 1), refused(1, "at least 2"));
    assert_eq!(message(Rules::above(2.0), 2), refused(2, "more than 2"));
    assert_eq!(message(Rules::above(2.0).at_most(4.0), 5), refused(5, "more than 2, at most 4"));
    assert_eq!(message(Rules::above(2.0).at_most(4.0), 3), None);
    assert_eq!(message(Rules::any(), 0), None);
    assert_eq!(message(Rules::any().at_most(7.0), 8), refused(8, "0 to 7"));
    assert_eq!(
        Some(9_usize).check(&Parameter { name: "pretend", help: "", default: "0", rules: percent }).ok(),
        Some(())
    );
}

//! The request for an answer to a conversation, and for answers without a session.

use crate::engine::{Engine, PromptOrigin, Request, Watch};
use crate::error::{Error, Result};
use crate::machine::clock::Instant;
use crate::receipt::TemplateClaim;
use crate::sampler::SamplingParams;
use crate::template::{CallReader, Conversation, Template, Tool, ToolChoice};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;

/// The ids of a conversation's prompt. Text of messages never becomes a control token.
pub fn encode(
    template: &Template,
    tokenizer: &Tokenizer,
    conversation: &Conversation,
    watch: &mut Watch,
) -> Result<Vec<TokenId>> {
    let controls: Vec<&str> = tokenizer.control_texts().collect();
    tokenizer.encode_prompt(&template.prompt(conversation, &controls, watch)?, watch)
}

/// The request for an answer to a conversation, which belongs to no session.
pub fn request(
    engine: &Engine,
    template: &Template,
    conversation: &Conversation,
    mut params: SamplingParams,
    watch: &mut Watch,
) -> Result<Request> {
    let (ids, origin) = prompt(engine, template, conversation, watch)?;
    constrain_calls(engine, &conversation.calls.choice, origin.calls.as_ref(), &mut params)?;
    add_stops(engine, template.for_conversation(conversation), &mut params)?;
    Ok(engine.request(ids.into(), params, watch)?.with_origin(origin))
}

/// The ids of a conversation's prompt, and how it was made.
pub(super) fn prompt(
    engine: &Engine,
    template: &Template,
    conversation: &Conversation,
    watch: &mut Watch,
) -> Result<(Vec<TokenId>, PromptOrigin)> {
    let tokenizer = engine.tokenizer()?; // may wait for the thread that builds it, which is not this prompt's time
    let start = Instant::now();
    let controls: Vec<&str> = tokenizer.control_texts().collect();
    let conversation = &*template.prepared(conversation, watch)?;
    let prompt = template.prompt(conversation, &controls, watch)?;
    let render = start.elapsed();
    let ids = tokenizer.encode_prompt(&prompt, watch)?;
    let used = template.for_conversation(conversation);
    let origin = PromptOrigin {
        render,
        tokenize: start.elapsed() - render,
        template: Some(TemplateClaim::new(used.name(), used.origin.name(), &used.source)),
        system: conversation.system().map(str::to_string),
        previous: None,
        thoughts: template.thoughts_at_end(conversation, &prompt),
        calls: call_reader(used, conversation)?,
    };
    Ok((ids, origin))
}

/// What finds the calls in an answer; `None` if it may have none.
fn call_reader(template: &Template, conversation: &Conversation) -> Result<Option<CallReader>> {
    let rules = &conversation.calls;
    let mut tools = Tool::all(&conversation.tools)?;
    if let ToolChoice::Named(name) = &rules.choice {
        let known: Vec<String> = tools.iter().map(|tool| format!("'{}'", tool.name)).collect();
        tools.retain(|tool| tool.name == *name);
        if tools.is_empty() {
            let known = if known.is_empty() { "no tools".into() } else { known.join(", ") };
            return Err(Error::Argument(format!("tool_choice is '{name}', but tools has {known}")));
        }
    }
    if rules.choice == ToolChoice::Required && tools.is_empty() {
        return Err(Error::Argument("tool_choice is 'required', but there are no tools; give tools".into()));
    }
    let parallel = rules.parallel && !matches!(rules.choice, ToolChoice::Named(_));
    let reader = CallReader { format: template.call_format(), tools, parallel };
    Ok(Some(reader).filter(|reader| !reader.tools.is_empty() && rules.choice != ToolChoice::None))
}

/// Gives an answer that has to be a call the form of one. Where the model decides and other answers have to be JSON, the
/// form is either of the two.
fn constrain_calls(
    engine: &Engine,
    choice: &ToolChoice,
    reader: Option<&CallReader>,
    params: &mut SamplingParams,
) -> Result<()> {
    let Some(reader) = reader else { return Ok(()) };
    let is_forced = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
    let other = params.grammar_source();
    if let Some(other) = other.as_ref().filter(|_| is_forced) {
        let other = other.kind.name();
        return Err(Error::Argument(format!(
            "tool_choice asks for a call, and {other} for an answer of another form; leave one out"
        )));
    }
    let schema = params.json_schema.take_if(|_| !is_forced);
    if is_forced || schema.is_some() {
        let tokenizer = engine.tokenizer()?;
        let control = |text: &str| tokenizer.id_of(text).filter(|id| tokenizer.is_control(*id));
        params.grammar = Some(reader.grammar(schema.map(|schema| schema.0), control)?);
    }
    Ok(())
}

/// Adds the texts that end the assistant's turn, as ids where the vocabulary has control tokens for them.
pub(super) fn add_stops(engine: &Engine, template: &Template, params: &mut SamplingParams) -> Result<()> {
    if params.ignore_eos {
        return Ok(());
    }
    let tokenizer = engine.tokenizer()?;
    for stop in template.stop_sequences() {
        match tokenizer.id_of(&stop).filter(|id| tokenizer.is_control(*id)) {
            Some(id) => params.stop_token_ids.push(id),
            None => params.stop.push(stop),
        }
    }
    Ok(())
}

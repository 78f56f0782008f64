//! The request for an answer to a conversation, and for answers without a session.

use crate::engine::{Engine, PromptOrigin, Request, Watch};
use crate::error::Result;
use crate::receipt::TemplateClaim;
use crate::sampler::SamplingParams;
use crate::template::{Conversation, Template};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::time::Instant;

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
    };
    Ok((ids, origin))
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

//! Answers as Python asks for them: to one prompt or conversation or to several, `n` each, at once or beside the event
//! loop.

use super::awaitable::{Abandoned, awaitable, step};
use super::completion::Completion;
use super::convert::{DroppedDetached, count, detached, type_name, warn};
use super::notebook::ProgressBar;
use super::parsed::JsonForm;
use super::processor::logits_processor;
use super::sampling::{self, Params, SamplingParams};
use super::stream::Stream;
use super::together::Ordered;
use crate::chat;
use crate::engine::{Engine, TextOrIds, Watch};
use crate::error::{Error, Result};
use crate::template::{Conversation, Template, TemplateOrigin};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What is answered.
#[derive(Clone)]
pub enum Prompt {
    /// A text or ids, which are continued.
    Raw(TextOrIds),
    /// A conversation, whose next message is written.
    Chat(Arc<Template>, Box<Conversation>),
}

/// One or several of something, as Python gave it.
#[derive(Clone, IntoPyObject)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(item) => std::slice::from_ref(item),
            OneOrMany::Many(items) => items,
        }
    }

    /// Converts each item. `convert` gets its index, if there are many.
    pub fn try_map<U>(self, mut convert: impl FnMut(T, Option<usize>) -> PyResult<U>) -> PyResult<OneOrMany<U>> {
        Ok(match self {
            OneOrMany::One(item) => OneOrMany::One(convert(item, None)?),
            OneOrMany::Many(items) => {
                let converted = items.into_iter().enumerate().map(|(i, item)| convert(item, Some(i)));
                OneOrMany::Many(converted.collect::<PyResult<_>>()?)
            }
        })
    }
}

/// The items of a list of prompts: of texts, or of lists of ids. A list of ids is one prompt.
pub fn prompts<'py>(prompt: &Bound<'py, PyAny>) -> OneOrMany<Bound<'py, PyAny>> {
    let is_prompt = |item: &Bound<'py, PyAny>| item.is_instance_of::<PyString>() || item.try_iter().is_ok();
    many(prompt, is_prompt)
}

/// The items of a list of conversations. A list of messages is one conversation.
pub fn conversations<'py>(messages: &Bound<'py, PyAny>) -> OneOrMany<Bound<'py, PyAny>> {
    many(messages, |item| item.is_instance_of::<PyList>() || item.is_instance_of::<PyTuple>())
}

fn many<'py>(value: &Bound<'py, PyAny>, is_item: impl Fn(&Bound<'py, PyAny>) -> bool) -> OneOrMany<Bound<'py, PyAny>> {
    let Ok(list) = value.cast::<PyList>() else { return OneOrMany::One(value.clone()) };
    let items: Vec<_> = list.iter().collect();
    if !items.is_empty() && items.iter().all(is_item) { OneOrMany::Many(items) } else { OneOrMany::One(value.clone()) }
}

/// `name[i]`, or `name` for a single value.
pub fn indexed(name: &str, index: Option<usize>) -> String {
    index.map_or_else(|| name.to_string(), |i| format!("{name}[{i}]"))
}

/// Starts to answer one prompt.
pub fn begin(engine: Arc<Engine>, prompt: Prompt, params: Params, watch: &mut Watch) -> Result<Stream> {
    let Params { core, hooks } = params;
    let json = JsonForm::new(&core, &hooks);
    let mut request = match prompt {
        Prompt::Raw(prompt) => engine.request(prompt, core, watch)?,
        Prompt::Chat(template, conversation) => chat::request(&engine, &template, &conversation, core, watch)?,
    };
    request.processor = hooks.processor.map(logits_processor);
    let stream = engine.stream(request);
    Ok(Stream::of_prompt(engine, stream, json))
}

/// Prompts with the parameters of their answers.
pub struct Questions {
    engine: Arc<Engine>,
    prompts: OneOrMany<(Prompt, Params)>,
    /// Answers to each prompt; None for one answer that is not in a list.
    n: Option<usize>,
}

impl Questions {
    /// `params` is a SamplingParams, or a list with one for each prompt; `keywords` override both.
    pub fn new(
        engine: Arc<Engine>,
        prompts: OneOrMany<Prompt>,
        params: Option<&Bound<'_, PyAny>>,
        n: Option<&Bound<'_, PyAny>>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Questions> {
        let own = params.map(|params| ParamsArgument::new(params, &prompts)).transpose()?;
        let with_params = |prompt, i: Option<usize>| {
            let own = match &own {
                None => None,
                Some(ParamsArgument::Same(params)) => Some(params.get()),
                Some(ParamsArgument::Each(all)) => Some(all[i.unwrap_or(0)].get()),
            };
            Ok((prompt, sampling::params(own, keywords)?))
        };
        let prompts = prompts.try_map(with_params)?;
        let n = n.filter(|n| !n.is_none()).map(|n| count(n, "n", 1)).transpose()?;
        Ok(Questions { engine, prompts, n })
    }

    /// The only prompt, for a stream; `call` names the method in the error.
    pub fn single(self, call: &str) -> PyResult<(Arc<Engine>, Prompt, Params)> {
        match (self.prompts, self.n) {
            (OneOrMany::One((prompt, params)), None) => Ok((self.engine, prompt, params)),
            _ => {
                let message = format!("{call} gives one answer; call it once for each, or use its form without stream");
                Err(PyTypeError::new_err(message))
            }
        }
    }

    /// All answers, computed together.
    pub fn answer<'py>(self, py: Python<'py>, progress: bool) -> PyResult<Bound<'py, PyAny>> {
        let Questions { engine, prompts, n } = self;
        let (prompts, is_list) = match prompts {
            OneOrMany::One((prompt, params)) if n.is_none() => {
                return detached(py, |watch| begin(engine, prompt, params, watch))?.complete(py)?.into_bound_py_any(py);
            }
            OneOrMany::One(prompt) => (vec![prompt], false),
            OneOrMany::Many(prompts) => (prompts, true),
        };
        let bar = ProgressBar::begin(py, progress && is_list, "generate", prompts.len(), "prompt")?;
        let mut answers = DroppedDetached::new(AnswersOf::new(engine, prompts, n, is_list));
        loop {
            match detached(py, |watch| answers.get().next(watch))? {
                None => break,
                Some(is_whole_prompt) => bar.advance(usize::from(is_whole_prompt))?,
            }
        }
        answers.into_inner().sorted().into_bound_py_any(py)
    }

    /// All answers, computed together beside the event loop. `name` is that of the coroutine.
    pub fn answer_async<'py>(self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let Questions { engine, prompts, n } = self;
        awaitable(py, name, |abandoned| async move {
            let (prompts, is_list) = match prompts {
                OneOrMany::One((prompt, params)) if n.is_none() => {
                    return Ok(Answers::One(complete(&engine, prompt, params, &abandoned).await?));
                }
                OneOrMany::One(prompt) => (vec![prompt], false),
                OneOrMany::Many(prompts) => (prompts, true),
            };
            let all = move |watch: &mut Watch| {
                let mut answers = AnswersOf::new(engine, prompts, n, is_list);
                while answers.next(watch)?.is_some() {}
                Ok(answers.sorted())
            };
            step(&abandoned, all).await
        })
    }
}

/// Answers to several prompts, `n` to each.
struct AnswersOf {
    ordered: Ordered,
    prompts: Vec<(Prompt, Params)>,
    n: Option<usize>,
    /// Whether errors name the prompt by its index.
    is_list: bool,
    /// The prompt that is asked next, and how often it was asked.
    next: (usize, usize),
    answers: Vec<Completion>,
}

impl AnswersOf {
    fn new(engine: Arc<Engine>, prompts: Vec<(Prompt, Params)>, n: Option<usize>, is_list: bool) -> AnswersOf {
        AnswersOf { ordered: Ordered::new(engine), prompts, n, is_list, next: (0, 0), answers: Vec::new() }
    }

    /// Computes until the next answer in order is done. Returns whether it is the last one to its prompt; None if all
    /// are done.
    fn next(&mut self, watch: &mut Watch) -> Result<Option<bool>> {
        let each = self.n.unwrap_or(1);
        loop {
            while self.ordered.has_room()
                && let Some((prompt, params)) = self.prompts.get(self.next.0)
            {
                let params = nth(params, self.next.1);
                let engine = self.ordered.engine().clone();
                let name = if matches!(prompt, Prompt::Raw(_)) { "prompt" } else { "messages" };
                let (is_list, place) = (self.is_list, format!("{name}[{}]", self.next.0));
                let stream = begin(engine, prompt.clone(), params, watch);
                let in_list = |error: Error| if is_list { error.at(place) } else { error };
                self.ordered.add(stream.map_err(in_list)?)?;
                self.next.1 += 1;
                if self.next.1 == each {
                    self.next = (self.next.0 + 1, 0);
                }
            }
            if let Some(answer) = self.ordered.take() {
                self.answers.push(answer?);
                return Ok(Some(self.answers.len().is_multiple_of(each)));
            }
            if !self.ordered.advance(watch) {
                return Ok(None);
            }
        }
    }

    /// The answers as they were asked for.
    fn sorted(self) -> Answers {
        let mut all = self.answers.into_iter();
        let mut of_prompt = || match self.n {
            None => Answers::One(all.next().expect("an answer to each prompt")),
            Some(n) => Answers::Several(all.by_ref().take(n).collect()),
        };
        let answers: Vec<Answers> = self.prompts.iter().map(|_| of_prompt()).collect();
        if self.is_list { Answers::OfPrompts(answers) } else { answers.into_iter().next().expect("one prompt") }
    }
}

/// The results of [`Questions`].
#[derive(IntoPyObject)]
#[expect(clippy::large_enum_variant, reason = "there are few, for a short time")]
enum Answers {
    One(Completion),
    Several(Vec<Completion>),
    OfPrompts(Vec<Answers>),
}

/// The whole answer, computed beside the event loop.
async fn complete(engine: &Arc<Engine>, prompt: Prompt, params: Params, abandoned: &Abandoned) -> PyResult<Completion> {
    let engine = engine.clone();
    let begin = move |watch: &mut Watch| Ok(begin(engine, prompt, params, watch)?);
    step(abandoned, begin).await?.complete_async(abandoned).await
}

/// The parameters of answer `i` of several: a seed that was given counts up, so that the answers differ.
fn nth(params: &Params, i: usize) -> Params {
    let mut params = params.clone();
    params.core.seed = params.core.seed.map(|seed| seed.wrapping_add(i as u64));
    params
}

/// The argument `params`.
enum ParamsArgument<'a, 'py> {
    Same(&'a Bound<'py, SamplingParams>),
    Each(Vec<Bound<'py, SamplingParams>>),
}

impl<'a, 'py> ParamsArgument<'a, 'py> {
    fn new<T>(params: &'a Bound<'py, PyAny>, prompts: &OneOrMany<T>) -> PyResult<ParamsArgument<'a, 'py>> {
        if let Ok(params) = params.cast::<SamplingParams>() {
            return Ok(ParamsArgument::Same(params));
        }
        let wrong = |found: String| {
            PyTypeError::new_err(format!(
                "params must be a SamplingParams, or a list with one for each of several prompts; found {found}"
            ))
        };
        let list = params.cast::<PyList>().map_err(|_| wrong(type_name(params)))?;
        let OneOrMany::Many(prompts) = prompts else { return Err(wrong("a list for a single prompt".into())) };
        if list.len() != prompts.len() {
            return Err(wrong(format!("{} for {} prompts", list.len(), prompts.len())));
        }
        let item = |(i, item): (usize, Bound<'py, PyAny>)| {
            let found = format!("{} at params[{i}]", type_name(&item));
            item.cast_into::<SamplingParams>().map_err(|_| wrong(found))
        };
        Ok(ParamsArgument::Each(list.iter().enumerate().map(item).collect::<PyResult<_>>()?))
    }
}

/// Warns of a text that was probably meant as a message: the model answers messages in its chat template. `warned` says
/// whether the user was told of the template.
pub fn warn_of_raw(py: Python<'_>, engine: &Engine, prompt: &TextOrIds, warned: &AtomicBool) -> PyResult<()> {
    let TextOrIds::Text(text) = prompt else { return Ok(()) };
    let (control, chats) = detached(py, |_| {
        let control = engine.tokenizer()?.control_text_in(text).map(str::to_string);
        Ok((control, engine.template().is_ok_and(|template| template.origin != TemplateOrigin::Fallback)))
    })?;
    if let Some(control) = control {
        let control = PyString::new(py, &control).repr()?;
        return warn(
            py,
            &format!(
                "the prompt contains {control}, the text of a control token, which is plain text here; call \
                 engine.chat(messages), or give ids: engine.template.encode(messages, engine.tokenizer) or \
                 engine.encode(text, parse_special=True)"
            ),
        );
    }
    if !chats || warned.swap(true, Relaxed) {
        return Ok(());
    }
    warn(
        py,
        "the model has a chat template, but generate and stream continue a text as it is; to ask the model something, \
         call engine.chat([{\"role\": \"user\", \"content\": \"...\"}]) or ChatSession(engine).send(\"...\")",
    )
}

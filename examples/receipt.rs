//! Answers questions with a receipt, and replays receipts, without Python:
//!
//! ```text
//! cargo run --release --example receipt -- answer MODEL RECEIPT SYSTEM QUESTION...   # writes RECEIPT
//! cargo run --release --example receipt -- replay MODEL RECEIPT...
//! ```
//!
//! Prints a line for each receipt: its digest, whether the answer computed here is the same, the instruction set and
//! the number of threads. Ends with an error if one is not the same. `BITNET_ISA` chooses the instruction set.

use bitnet::chat::{ChatSession, ChatStream};
use bitnet::engine::{Engine, Options};
use bitnet::error::{Error, Result};
use bitnet::receipt::Receipt;
use bitnet::sampler::SamplingParams;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

const USAGE: &str = "give: answer MODEL RECEIPT SYSTEM QUESTION..., or: replay MODEL RECEIPT...";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["answer", model, receipt, system, questions @ ..] if !questions.is_empty() => {
            answer(model, receipt, system, questions).map(|()| true)
        }
        ["replay", model, receipts @ ..] if !receipts.is_empty() => replay(model, receipts),
        _ => Err(Error::Argument(USAGE.into())),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn open(model: &str) -> Result<Engine> {
    Engine::open(Path::new(model), Options { n_threads: Some(2), ..Options::default() }, &mut || false)
}

/// Answers the questions in one conversation and saves the receipt of the last answer, which stands for both.
fn answer(model: &str, path: &str, system: &str, questions: &[&str]) -> Result<()> {
    let engine = Arc::new(open(model)?);
    let session = Arc::new(Mutex::new(ChatSession::new(engine.template()?, Some(system.into()))));
    for question in questions {
        // Draws follow the seed, so sampled ids are the same everywhere, too.
        let params =
            SamplingParams { max_tokens: Some(64), seed: Some(7), temperature: 0.8, ..SamplingParams::default() };
        let mut stream = ChatStream::begin(engine.clone(), session.clone(), (*question).into(), params, &mut || false)?;
        while stream.next(&mut || false)?.is_some() {}
    }
    let receipt = session.lock().expect("nobody else has it").receipts.last().expect("two answers").clone();
    receipt.save(Path::new(path))?;
    print(&engine, &receipt, "answered")
}

/// Computes the answers again. Returns whether all are the same.
fn replay(model: &str, paths: &[&str]) -> Result<bool> {
    let engine = open(model)?;
    let mut all_same = true;
    for path in paths {
        let receipt = Receipt::load(Path::new(path))?;
        receipt.validate()?;
        let same = engine.replay(&receipt, None, &mut || false)?.same;
        print(&engine, &receipt, if same { "the same" } else { "different" })?;
        all_same &= same;
    }
    Ok(all_same)
}

fn print(engine: &Engine, receipt: &Receipt, verdict: &str) -> Result<()> {
    println!("{} {verdict}, {}, {} threads", receipt.digest()?, engine.isa(), engine.n_threads());
    Ok(())
}

//! An answer in a conversation.

use super::ChatSession;
use crate::engine::{Engine, LogitsProcessor, Piece, Stream, Watch};
use crate::error::Result;
use crate::sampler::SamplingParams;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the user says next, and how it is to be answered.
pub struct UserTurn {
    /// The text of the message.
    pub text: String,
    /// Whether the answer begins with thoughts; `None`: as the conversation says.
    pub enable_thinking: Option<bool>,
    /// Changes the logits before an id is chosen.
    pub processor: Option<LogitsProcessor>,
}

impl From<String> for UserTurn {
    fn from(text: String) -> UserTurn {
        UserTurn { text, enable_thinking: None, processor: None }
    }
}

impl From<&str> for UserTurn {
    fn from(text: &str) -> UserTurn {
        text.to_string().into()
    }
}

/// An answer under way, which enters the conversation when it ends. Dropping it cancels it.
pub struct ChatStream {
    /// The engine that computes the answer.
    pub engine: Arc<Engine>,
    session: Arc<Mutex<ChatSession>>,
    /// The user's text, until the exchange has entered the history.
    user: Option<String>,
    /// The answer so far.
    pub stream: Stream,
}

/// Locks the conversation, also if another thread panicked while it held the lock.
fn lock(session: &Mutex<ChatSession>) -> MutexGuard<'_, ChatSession> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChatStream {
    /// Starts to answer the user. Computes nothing yet.
    pub fn begin(
        engine: Arc<Engine>,
        session: Arc<Mutex<ChatSession>>,
        mut user: UserTurn,
        params: SamplingParams,
        watch: &mut Watch,
    ) -> Result<ChatStream> {
        let stream = lock(&session).begin(&engine, &mut user, params, watch)?;
        Ok(ChatStream { engine, session, user: Some(user.text), stream })
    }

    /// The next piece; None once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, watch: &mut Watch) -> Result<Option<Piece>> {
        let piece = self.stream.next(&self.engine, watch)?;
        self.end_if_finished();
        Ok(piece)
    }

    /// The next piece, if its step was computed; None once the answer has ended.
    pub(super) fn take_piece(&mut self) -> Option<Piece> {
        let piece = self.stream.take_piece(&self.engine);
        self.end_if_finished();
        piece
    }

    fn end_if_finished(&mut self) {
        if self.stream.generation.finish.is_some() {
            self.end();
        }
    }

    /// Ends the answer now. Does nothing if it has ended.
    pub fn cancel(&mut self) {
        self.stream.cancel(&self.engine);
        self.end();
    }

    fn end(&mut self) {
        if let Some(user) = self.user.take() {
            lock(&self.session).end(user, &mut self.stream);
        }
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

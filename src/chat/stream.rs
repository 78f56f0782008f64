//! An answer within a conversation.

use super::ChatSession;
use crate::decode::Watch;
use crate::engine::{Engine, Piece, Stream};
use crate::error::Result;
use crate::sampler::SamplingParams;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An answer under way, which enters the conversation when it ends. Dropping it cancels it.
pub struct ChatStream {
    /// The engine that computes it.
    pub engine: Arc<Engine>,
    session: Arc<Mutex<ChatSession>>,
    /// What the user said, until the exchange has entered the history.
    user: Option<String>,
    /// The answer so far.
    pub stream: Stream,
}

/// The conversation, whatever happened to another thread that had it.
fn lock(session: &Mutex<ChatSession>) -> MutexGuard<'_, ChatSession> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChatStream {
    /// Begins to answer what the user says. Nothing is computed yet.
    pub fn begin(
        engine: Arc<Engine>,
        session: Arc<Mutex<ChatSession>>,
        user: String,
        params: SamplingParams,
    ) -> Result<ChatStream> {
        let stream = lock(&session).begin(&engine, &user, params)?;
        Ok(ChatStream { engine, session, user: Some(user), stream })
    }

    /// The next piece; nothing once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, watch: &mut Watch) -> Result<Option<Piece>> {
        let piece = self.stream.next(&self.engine, watch)?;
        if self.stream.answer.finish.is_some() {
            self.end();
        }
        Ok(piece)
    }

    /// Ends the answer before its time; nothing if it has ended.
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

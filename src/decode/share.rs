//! Prompts that begin alike and wait at the same time: the first one computes what they share, the others take it over.

use super::job::Job;
use super::step::Step;
use crate::token::TokenId;

/// A prompt waits for another one if that saves it at least so many positions.
const LEAST: usize = 32;

/// All ids of a step: those of its sequence and those that follow.
fn ids(step: &Step) -> impl Iterator<Item = &TokenId> {
    step.sequence.ids().iter().chain(step.pending())
}

/// Lets each new job look for another one that begins like it. If the other one has computed what they share, the job
/// takes it over; if it is still to be computed, the job waits for it.
pub(super) fn look(jobs: &mut [Job]) {
    for i in 0..jobs.len() {
        if std::mem::replace(&mut jobs[i].has_looked, true) || jobs[i].step.shareable() < LEAST {
            continue;
        }
        let (own, most) = (jobs[i].step.sequence.ids().len(), jobs[i].step.shareable());
        let shared = |other: &Job| {
            let same = ids(&jobs[i].step).zip(ids(&other.step)).take_while(|(a, b)| a == b).count();
            same.min(own + most)
        };
        // A job that follows another one is not followed itself, so nobody waits in a circle.
        let candidates = (0..jobs.len()).filter(|j| *j != i && jobs[*j].follows.is_none());
        let Some((len, best)) = candidates.map(|j| (shared(&jobs[j]), j)).max_by_key(|(len, j)| (*len, usize::MAX - j))
        else {
            continue;
        };
        if len < own + LEAST {
            continue;
        }
        if jobs[best].step.sequence.ids().len() >= len {
            let [job, other] = jobs.get_disjoint_mut([i, best]).expect("two jobs");
            job.step.adopt(&other.step.sequence, len);
        } else {
            jobs[best].has_looked = true;
            jobs[best].step.sequence.keep_state_at(len);
            jobs[i].follows = Some((jobs[best].number, len));
        }
    }
}

/// Gives what `job` has computed to those that wait for it, once it has computed all that they share.
pub(super) fn hand_over(job: &Job, waiting: &mut [Job]) {
    for other in waiting {
        if let Some((number, len)) = other.follows
            && number == job.number
            && job.step.sequence.ids().len() >= len
        {
            other.step.adopt(&job.step.sequence, len);
            (other.follows, other.has_looked) = (None, false);
        }
    }
}

/// Lets those go on that wait for a job that has ended.
pub(super) fn release(number: u64, waiting: &mut [Job]) {
    for other in waiting.iter_mut().filter(|other| other.follows.is_some_and(|(leader, _)| leader == number)) {
        (other.follows, other.has_looked) = (None, false);
    }
}

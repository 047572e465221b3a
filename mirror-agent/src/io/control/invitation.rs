//! Enters: whoever is at the unix socket wants to open the page. Leaves: a secret that opens one session, once and soon.
//!
//! The token is good for as long as the agent runs, so it should not stand in an address that a browser remembers. An
//! invitation may: it has been used by then.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    door::{digest, is_same},
    token::Token,
};

/// For how long an invitation is good: time enough to paste it into a browser, also behind a port-forward that is still to
/// be started.
pub(super) const INVITATION_TIME: Duration = Duration::from_secs(5 * 60);

/// Invitations that are good at the same time; one more ends the oldest.
const INVITATIONS: usize = 16;

/// Invitations that were given and not used.
#[derive(Debug, Default)]
pub(super) struct Invitations(Mutex<Vec<Invitation>>);

#[derive(Debug)]
struct Invitation {
    digest: [u8; 32],
    expires: Instant,
}

impl Invitations {
    /// One more.
    pub(super) fn issue(&self) -> io::Result<Token> {
        let secret = Token::random()?;
        let now = Instant::now();
        let mut open = self.lock();
        open.retain(|invitation| invitation.expires > now);
        if open.len() >= INVITATIONS {
            open.remove(0);
        }
        open.push(Invitation { digest: digest(secret.as_str().as_bytes()), expires: now + INVITATION_TIME });
        Ok(secret)
    }

    /// Whether this is one that is still good; from now on it is not.
    pub(super) fn redeem(&self, secret: &str) -> bool {
        let (digest, now) = (digest(secret.as_bytes()), Instant::now());
        let mut open = self.lock();
        let mut is_good = false;
        open.retain(|invitation| {
            let is_it = is_same(&invitation.digest, &digest);
            is_good |= is_it & (invitation.expires > now);
            !is_it
        });
        is_good
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Invitation>> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invitation_is_good_once() {
        let invitations = Invitations::default();
        let (one, other) = (invitations.issue().unwrap(), invitations.issue().unwrap());
        assert!(!invitations.redeem("") && !invitations.redeem(&one.as_str()[1..]));
        assert!(invitations.redeem(one.as_str()));
        assert!(!invitations.redeem(one.as_str()));
        assert!(invitations.redeem(other.as_str()));
    }

    #[test]
    fn invitation_that_is_too_old_is_refused() {
        let invitations = Invitations::default();
        let secret = invitations.issue().unwrap();
        invitations.lock()[0].expires = Instant::now();
        assert!(!invitations.redeem(secret.as_str()));
    }

    #[test]
    fn invitations_are_bounded_and_the_oldest_goes() {
        let invitations = Invitations::default();
        let secrets: Vec<_> = (0..=INVITATIONS).map(|_| invitations.issue().unwrap()).collect();
        assert!(!invitations.redeem(secrets[0].as_str()));
        assert!(secrets[1..].iter().all(|secret| invitations.redeem(secret.as_str())));
    }
}

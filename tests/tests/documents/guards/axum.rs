//! Enters: requests. Leaves: the guard of `docs/side-effects.md`, line by line, so that it is compiled and run.

use std::{env, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Whether this process is a shadow, and what may be written in it.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) is_shadow: bool,
    pub(crate) neutral: Arc<[String]>,
}

impl Guard {
    /// As the environment says.
    pub(crate) fn from_environment(neutral: &[&str]) -> Self {
        let is_shadow = env::var("SHADOW_MODE").is_ok_and(|mode| mode == "on");
        Self { is_shadow, neutral: neutral.iter().map(|path| (*path).to_owned()).collect() }
    }

    /// Does what leaves the service; in a shadow it gives what stands in for the result.
    pub(crate) fn outward<T>(&self, action: impl FnOnce() -> T, stand_in: T) -> T {
        if self.is_shadow { stand_in } else { action() }
    }

    fn refusal(&self, request: &Request) -> Option<StatusCode> {
        if !self.is_shadow {
            let is_copy = request.headers().get("x-shadow").is_some_and(|value| value == "true");
            return is_copy.then_some(StatusCode::MISDIRECTED_REQUEST);
        }
        let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        let rest = |known: &String| request.uri().path().strip_prefix(known.as_str()).map(str::to_owned);
        let is_neutral =
            self.neutral.iter().filter_map(rest).any(|rest| rest.is_empty() || rest.starts_with('/'));
        (!is_safe && !is_neutral).then_some(StatusCode::FORBIDDEN)
    }
}

/// `router.layer(axum::middleware::from_fn_with_state(guard, shadow_guard))`, after all routes.
pub(crate) async fn shadow_guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(&request) {
        Some(status) => status.into_response(),
        None => next.run(request).await,
    };
    if guard.is_shadow {
        response.headers_mut().insert("x-shadow-mode", HeaderValue::from_static("on"));
    }
    response
}

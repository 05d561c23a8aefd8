//! `parlor serve`: a shell command behind each callback.

use std::collections::BTreeSet;
use std::sync::Arc;

use parlor_protocol::name::EventName;
use parlor_user::{UserBuilder, Value};

use super::args::Settings;
use super::child;
use super::error::Error;
use super::session::{self, Stop, announce, join_named};

pub(super) async fn serve(settings: &Settings, callbacks: Vec<(EventName, String)>) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    if let Some((twice, _)) = callbacks.iter().find(|(name, _)| !names.insert(name.as_str())) {
        return Err(Error::Usage(format!("the callback {} is given twice: leave one out", twice.as_str())));
    }
    let serving = |mut builder: UserBuilder| {
        for (name, command) in &callbacks {
            let call = Arc::new(child::Callback { name: name.as_str().to_owned(), command: command.clone() });
            let answer = move |context: parlor_user::Context, argument: Value| {
                let call = Arc::clone(&call);
                async move { call.answer(context.from(), &argument).await }
            };
            builder = builder.on_get(name.as_str(), answer);
        }
        builder
    };
    let mut stop = Stop::new()?;
    let user = tokio::select! {
        user = join_named(settings, "serve", serving) => user?,
        () = stop.next() => return Ok(()),
    };
    let mut events = user.events();
    announce(&user, "serves", settings);
    let ended = tokio::select! {
        () = stop.next() => Ok(()),
        ended = session::ended(&mut events) => ended,
    };
    stop.leave(user).await;
    ended
}

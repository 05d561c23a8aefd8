//! Names and accounts that are somebody's already, and tickets that are.

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::client::{Client, Who};
use parlor_lab::hostile::outcome::Outcome::{self, Closed, LoginRefused, Served};
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{Credentials, TicketSecret, ToRoom};
use parlor_room::admin::{AdminRequest, AdminResponse};
use parlor_room::password::PasswordHash;

use super::Place::{Accounts, Open};
use super::{PASSWORD, Place, Scene};
use crate::table::Row;

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    use CloseCode::Replaced;
    use LoginRefusal as No;
    let taken = |same_identity| LoginRefused(No::NameInUse { same_identity });
    vec![
        (
            Accounts,
            Row::new(
                "an account is used with another identity than before",
                |s| Box::pin(is_another(s)),
                LoginRefused(No::IdentityMismatch),
            ),
        ),
        (Accounts, Row::new("a ticket is made up", |s| Box::pin(forges_ticket(s)), LoginRefused(No::Ticket))),
        (
            Accounts,
            Row::new(
                "a ticket is another identity's",
                |s| Box::pin(shows_ticket(s, Thief::Identity)),
                LoginRefused(No::Ticket),
            ),
        ),
        (
            Accounts,
            Row::new(
                "a ticket is another name's",
                |s| Box::pin(shows_ticket(s, Thief::Name)),
                LoginRefused(No::Ticket),
            ),
        ),
        (
            Accounts,
            Row::new(
                "a ticket is from before the account was removed",
                |s| Box::pin(shows_ticket(s, Thief::Removed)),
                LoginRefused(No::Ticket),
            ),
        ),
        (
            Accounts,
            Row::new("a ticket is shown twice at once", |s| Box::pin(shows_ticket(s, Thief::Nobody)), Served),
        ),
        (
            Open,
            Row::new(
                "a name that is online is asked for by another identity",
                |s| Box::pin(comes_second(s, 2, false)),
                taken(false),
            ),
        ),
        (
            Open,
            Row::new(
                "another identity takes a name over",
                |s| Box::pin(comes_second(s, 2, true)),
                taken(false),
            ),
        ),
        (
            Open,
            Row::new(
                "a name that is online is asked for by another program of its identity",
                |s| Box::pin(comes_second(s, 1, false)),
                taken(true),
            ),
        ),
        (
            Open,
            Row::new(
                "a name is taken over by its own identity, which ends the first session",
                |s| Box::pin(takes_over(s)),
                Closed(Replaced),
            ),
        ),
        (
            Open,
            Row::new(
                "a name is asked for in other letters",
                |s| Box::pin(comes_in_capitals(s)),
                taken(false),
            ),
        ),
    ]
}

/// An account that its owner has used.
async fn used_account(scene: &Scene) -> Result<(Who, TicketSecret)> {
    let owner = Who { name: scene.account(), ..scene.who(1).password(PASSWORD)? };
    let (mut client, welcome) = Client::joined(scene.ground.elsewhere(), &scene.room(), &owner).await?;
    client.send(&ToRoom::Bye(CloseCode::Done)).await?;
    client.end().await?;
    Ok((owner, welcome.ticket.context("no ticket")?.secret))
}

async fn is_another(scene: &Scene) -> Result<Outcome> {
    let (owner, _) = used_account(scene).await?;
    scene.greeted().await?.tries(&Who { seed: 2, ..owner }).await
}

async fn forges_ticket(scene: &Scene) -> Result<Outcome> {
    let credentials = Credentials::Ticket(TicketSecret([7; 32]));
    scene.greeted().await?.tries(&Who { name: scene.account(), credentials, ..scene.who(1) }).await
}

/// What is wrong about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thief {
    Identity,
    Name,
    Removed,
    Nobody,
}

async fn shows_ticket(scene: &Scene, thief: Thief) -> Result<Outcome> {
    let owner =
        if thief == Thief::Removed { stored_account(scene).await? } else { used_account(scene).await? };
    let (owner, ticket) = owner;
    let honest = Who { credentials: Credentials::Ticket(ticket), ..owner };
    let who = match thief {
        Thief::Identity => Who { seed: 2, ..honest },
        Thief::Name => Who { name: super::account(scene.number + 100), ..honest },
        Thief::Removed => honest,
        Thief::Nobody => {
            let mut first = scene.greeted().await?;
            let first = first.tries(&honest).await?;
            ensure!(first == Served, "{first}");
            honest
        }
    };
    scene.greeted().await?.tries(&who).await
}

/// The same with an account that is removed meanwhile.
async fn stored_account(scene: &Scene) -> Result<(Who, TicketSecret)> {
    let room = &scene.venue.room;
    let name = format!("stored{}", scene.number);
    let (parsed, hash) = (name.parse()?, super::HASH.parse::<PasswordHash>()?);
    ensure!(room.admin(AdminRequest::UserAdd { name: parsed, hash }).await == AdminResponse::Done);
    let owner = Who { name: name.clone(), ..scene.who(1).password(PASSWORD)? };
    let (_client, welcome) = Client::joined(scene.from, &scene.room(), &owner).await?;
    ensure!(room.admin(AdminRequest::UserRemove { name: name.parse()? }).await == AdminResponse::Done);
    Ok((owner, welcome.ticket.context("no ticket")?.secret))
}

async fn comes_second(scene: &Scene, seed: u8, take_over: bool) -> Result<Outcome> {
    let (mut first, who) = scene.joined(1).await?;
    let second = scene.greeted().await?.tries(&Who { seed, instance: 9, take_over, ..who }).await?;
    ensure!(first.verdict().await? == Served, "the first session ended");
    Ok(second)
}

async fn takes_over(scene: &Scene) -> Result<Outcome> {
    let (mut first, who) = scene.joined(1).await?;
    let mut second = scene.greeted().await?;
    let taken = second.tries(&Who { instance: 9, take_over: true, ..who }).await?;
    ensure!(taken == Served, "{taken}");
    first.end().await
}

async fn comes_in_capitals(scene: &Scene) -> Result<Outcome> {
    let (_first, who) = scene.joined(1).await?;
    scene.greeted().await?.tries(&Who { seed: 2, name: who.name.to_uppercase(), ..who }).await
}

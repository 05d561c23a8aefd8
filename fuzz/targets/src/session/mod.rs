//! What two sessions do with what a peer, honest or not, sends them.

mod network;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use parlor_protocol::limits::{RECEIVE_WINDOW, STREAMS};
use parlor_protocol::session::{Arrived, Given, Inbound, Outbound};
use parlor_protocol::wire::peer::{FRAME_HEAD, Head, MESSAGE_COST, Status, write_frame_head};

use crate::Verdict;
use crate::records::frames;

/// Steps of a script.
const STEPS: usize = 200;
/// The longest body that a script sends or that is taken, in bytes: several pieces.
const LONGEST: usize = 100_000;
/// What a sender holds before it is full, in bytes.
const LIMIT: usize = 1024 * 1024;
/// What calls may take beside that.
const CALLS_BESIDE: usize = 1024 * 1024;
/// The most that a sender says it holds: what came last may be too long by all but a byte, and of bodies that leave in
/// pieces, the pieces count beside the whole though both lie in the same memory.
const MOST: usize = LIMIT + CALLS_BESIDE + (1 + STREAMS) * (LONGEST + 1024);
/// The most plaintext of a record beside its header.
const RECORD: usize = 65_494;

/// The first byte says who is not honest: the sender, the receiver, or only the network, which has short or long
/// bodies to carry.
pub fn session(data: &[u8]) -> Verdict {
    let mut script = Unstructured::new(data);
    let played = match script.arbitrary::<u8>().map(|who| (who % 3, who < 128)) {
        Ok((0, _)) => hostile_sender(&mut script),
        Ok((1, _)) => hostile_receiver(&mut script),
        Ok((_, true)) => network::carry(&mut script, &network::SHORT),
        Ok((_, false)) => network::carry(&mut script, &network::LONG),
        Err(_) => Ok(false),
    };
    Verdict::accepted_if(played.unwrap_or(false))
}

/// Whatever frames come, under whatever numbers: no more messages are held than the window and one, no body is
/// longer than allowed, and a number is taken once.
fn hostile_sender(script: &mut Unstructured<'_>) -> Result<bool> {
    let mut inbound = Inbound::new(LONGEST as u32);
    let (mut held, mut arrived) = (0, false);
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        if script.ratio(1, 8)? {
            inbound.consume(held);
            held = 0;
            let window = inbound.window();
            assert_eq!(inbound.grant(), window);
        }
        let expected = inbound.next();
        let seq = if script.ratio(1, 8)? { script.arbitrary()? } else { expected };
        let record = record(script)?;
        match inbound.take(seq, &record, 0) {
            Ok(taken) => {
                assert!(taken.frames > 0 && taken.end > 0 && taken.end <= record.len());
                let new = if seq == expected { taken.frames } else { 0 };
                assert_eq!(inbound.next(), expected + new, "a number is taken once, and only in its turn");
                arrived |= taken.arrived.is_some();
                held += taken.arrived.map_or(0, messages_of);
            }
            Err(_) => assert_eq!(inbound.next(), expected),
        }
        assert!(held < RECEIVE_WINDOW + LONGEST as u64 + MESSAGE_COST, "{held} bytes are held");
    }
    frames(&Bytes::copy_from_slice(script.bytes(script.len())?));
    Ok(arrived)
}

/// What messages among it cost. No body is longer than allowed.
fn messages_of(arrived: Arrived) -> u64 {
    let mut held = 0;
    match arrived {
        Arrived::Messages(messages) => {
            let all = messages.cost();
            for (body, cost) in messages {
                assert!(body.len() <= LONGEST && cost == body.len() as u64 + MESSAGE_COST);
                held += cost;
            }
            assert_eq!(held, all);
        }
        Arrived::Call { body, .. } | Arrived::Answer { body, .. } => assert!(body.len() <= LONGEST),
        Arrived::Cancelled { .. } => {}
    }
    held
}

/// One frame or several, of any kind, each as long as it says.
fn record(script: &mut Unstructured<'_>) -> Result<Bytes> {
    let mut record = Vec::new();
    for _ in 0..script.int_in_range(1..=3)? {
        let kind = script.int_in_range(14..=24)?;
        let payload = payload(script)?;
        if record.len() + FRAME_HEAD + payload.len() > RECORD {
            break;
        }
        write_frame_head(&mut record, kind, payload.len());
        record.extend_from_slice(&payload);
    }
    Ok(record.into())
}

/// A payload: a few bytes of the script, some of them as numbers that are likely to matter, and perhaps many more.
fn payload(script: &mut Unstructured<'_>) -> Result<Bytes> {
    let mut bytes = Vec::new();
    for _ in 0..script.int_in_range(0..=4)? {
        match script.int_in_range(0..=3)? {
            0 => bytes.push(script.arbitrary()?),
            1 => bytes.extend(u32::to_le_bytes(script.int_in_range(0..=3)?)),
            2 => bytes.extend(script.arbitrary::<u32>()?.to_le_bytes()),
            _ => bytes.extend(script.bytes(script.len().min(8))?),
        }
    }
    if script.ratio(1, 4)? {
        bytes.resize(bytes.len() + script.int_in_range(0..=RECORD / 2)?, 7);
    }
    Ok(bytes.into())
}

/// Whatever is acknowledged or granted: nothing that was not sent counts as taken over, what is held has its limit,
/// and every receipt comes back once.
fn hostile_receiver(script: &mut Unstructured<'_>) -> Result<bool> {
    let mut outbound = Outbound::new(LIMIT);
    let (mut receipts, mut given, mut sent) = (Vec::new(), 0u64, false);
    let mut calls = Vec::new();
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        match script.int_in_range(0..=9)? {
            0..=2 => {
                let head = head(script)?;
                let body = body(script)?;
                let placed = outbound.push(&head, Given::Borrowed(&body));
                if let (Ok(placed), Head::Send { .. }, true) = (placed, &head, script.arbitrary()?) {
                    receipts.extend(outbound.watch(placed, given));
                    given += 1;
                }
                if let (Ok(placed), Head::Get { call, .. }) = (placed, head) {
                    calls.push((call, placed));
                }
            }
            3 | 4 => {
                let mut record = Vec::new();
                let room = script.int_in_range(0..=RECORD)?;
                sent |= outbound.transmit(&mut record, room).is_some();
                assert!(record.len() <= room);
            }
            5 => {
                let (acked, ack) = (outbound.acked(), near(script, outbound.acked())?);
                match outbound.ack(ack, &mut receipts) {
                    Ok(()) => assert_eq!(outbound.acked(), acked.max(ack)),
                    Err(_) => assert_eq!(outbound.acked(), acked),
                }
            }
            6 => outbound.credit(near(script, RECEIVE_WINDOW)?),
            7 => outbound.rewind(),
            8 => {
                if let Some((call, placed)) = calls.pop() {
                    let _ = outbound.was_sent(placed);
                    outbound.cancel(call, placed);
                }
            }
            _ => {
                let _ = (outbound.has_work(), outbound.unsent(), outbound.in_flight(), outbound.is_empty());
            }
        }
        assert!(outbound.bytes() <= MOST, "{} bytes are held", outbound.bytes());
    }
    receipts.extend(outbound.abandon());
    let before = receipts.len();
    receipts.sort_unstable();
    receipts.dedup();
    assert_eq!(receipts.len(), before, "a receipt came back twice");
    assert!(outbound.is_empty() && outbound.bytes() == 0);
    Ok(sent)
}

fn head(script: &mut Unstructured<'_>) -> Result<Head<Bytes>> {
    Ok(match script.int_in_range(0..=4)? {
        0 => Head::Send { event: None },
        1 => Head::Send { event: Some(Bytes::from_static(b"a")) },
        2 => Head::Send { event: Some(Bytes::from_static(b"b")) },
        3 => Head::Get { call: script.arbitrary()?, timeout_ms: 0, name: Bytes::from_static(b"f") },
        _ => Head::Answer { call: script.arbitrary()?, status: Status::Ok },
    })
}

fn body(script: &mut Unstructured<'_>) -> Result<Bytes> {
    let length = match script.int_in_range(0..=3)? {
        0 | 1 => script.int_in_range(0..=300)?,
        2 => script.int_in_range(0..=33_000)?,
        _ => script.int_in_range(0..=LONGEST)?,
    };
    Ok(vec![script.arbitrary()?; length].into())
}

/// A number near `at`, or any.
fn near(script: &mut Unstructured<'_>, at: u64) -> Result<u64> {
    if script.ratio(3, 4)? {
        Ok(at.saturating_add_signed(script.int_in_range(-4..=40)?))
    } else {
        script.arbitrary()
    }
}

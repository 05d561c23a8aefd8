//! What waits gets on, however much is pushed past it.

use super::*;

/// Steps of one record each, of which any would bring everything many times over.
const STEPS: usize = 2000;

/// Lets a record through and hands over what came. The application takes messages at once.
fn step(c: &mut Conversation) -> Vec<Got> {
    c.transmit();
    c.deliver();
    c.acknowledge();
    for got in &c.arrived {
        if let Got::Message { cost, .. } = got {
            c.inbound.consume(*cost);
        }
    }
    if c.inbound.grant_is_due() {
        c.outbound.credit(c.inbound.grant());
    }
    std::mem::take(&mut c.arrived)
}

/// True if a message or call of 100 kB or more comes, though `refill` pushes more after every step.
fn comes(c: &mut Conversation, mut refill: impl FnMut(&mut Conversation, &[Got])) -> bool {
    let large = |got: &Got| matches!(got, Got::Message { body, .. } | Got::Call { body, .. } if body.len() >= 100_000);
    (0..STEPS).any(|_| {
        let came = step(c);
        refill(c, &came);
        came.iter().any(large)
    })
}

#[test]
fn pieces_leave_though_small_messages_keep_the_buffer_full() {
    for (head, len) in [(call(1), 100_000), (message("file"), 100_000), (message("file"), 1_000_000)] {
        let mut c = Conversation::new(8 << 20);
        c.push(&head, &vec![1; len], None).unwrap();
        let flood =
            |c: &mut Conversation, _: &[Got]| while c.push(&message("chat"), &[0; 1000], None).is_ok() {};
        flood(&mut c, &[]);
        assert!(comes(&mut c, flood), "{head:?} of {len} bytes");
    }
}

#[test]
fn pieces_and_messages_that_wait_leave_though_calls_of_one_frame_keep_coming() {
    let mut c = Conversation::new(8 << 20);
    c.push(&message("file"), &vec![1; 100_000], None).unwrap();
    for number in 0..8 {
        c.push(&call(number), &vec![0; 30_000], None).unwrap();
    }
    let again = |c: &mut Conversation, came: &[Got]| {
        for _ in came.iter().filter(|got| matches!(got, Got::Call { .. })) {
            c.push(&call(9), &vec![0; 30_000], None).unwrap();
        }
    };
    assert!(comes(&mut c, again));
}

#[test]
fn a_large_message_begins_though_calls_would_take_every_place_there_is() {
    let mut c = Conversation::new(8 << 20);
    for number in 0..64 {
        c.push(&call(number), &vec![0; 40_000], None).unwrap();
    }
    for _ in 0..10 {
        step(&mut c);
    }
    c.push(&message("file"), &vec![1; 100_000], None).unwrap();
    let again = |c: &mut Conversation, came: &[Got]| {
        for _ in came.iter().filter(|got| matches!(got, Got::Call { .. })) {
            c.push(&call(9), &vec![0; 40_000], None).unwrap();
        }
    };
    assert!(comes(&mut c, again));
}

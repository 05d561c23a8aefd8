//! Places for handshakes under way: few enough for this machine, and fewer for one address, so that no address
//! can take them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use parlor_protocol::limits::LINK_HANDSHAKES;

/// Handshakes of one address (v6: one /64). A peer opens a link or two at a time; a few peers may share an address.
const OF_ONE_ADDRESS: usize = 8;
/// Handshakes of one loopback address: many programs of this machine come from there.
const OF_LOOPBACK: usize = 32;

/// The places of one listener: [`LINK_HANDSHAKES`] in all.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By address. None is kept without a place.
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the handshakes under way. Dropping it frees it.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    address: IpAddr,
}

impl Places {
    /// A place for who comes from `from`, which is in its canonical form. `None`: there are too many.
    pub(super) fn take(&self, from: IpAddr) -> Option<Place> {
        let address = network(from);
        let most = if from.is_loopback() { OF_LOOPBACK } else { OF_ONE_ADDRESS };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= LINK_HANDSHAKES || here >= most {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, here + 1);
        drop(taken);
        Some(Place { taken: Arc::clone(&self.taken), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: of v6 the /64, which is what one subscriber has at least (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, from: &str, times: usize) -> Vec<Place> {
        (0..times).filter_map(|_| places.take(from.parse().unwrap())).collect()
    }

    #[test]
    fn one_address_has_a_few_places_and_a_v6_network_counts_as_one() {
        let places = Places::default();
        let v4 = take(&places, "192.0.2.1", 20);
        assert_eq!(v4.len(), OF_ONE_ADDRESS);
        assert_eq!(take(&places, "192.0.2.2", 1).len(), 1);
        let v6 = take(&places, "2001:db8::1", OF_ONE_ADDRESS);
        assert_eq!(v6.len(), OF_ONE_ADDRESS);
        assert!(places.take("2001:db8::ffff:1".parse().unwrap()).is_none());
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_some());
        assert_eq!(take(&places, "127.0.0.1", 40).len(), OF_LOOPBACK);
    }

    #[test]
    fn all_addresses_together_have_so_many_and_a_place_that_is_dropped_is_free() {
        let places = Places::default();
        let mut held: Vec<Place> =
            (0..20).flat_map(|host| take(&places, &format!("192.0.2.{host}"), OF_ONE_ADDRESS)).collect();
        assert_eq!(held.len(), LINK_HANDSHAKES);
        assert!(places.take("198.51.100.1".parse().unwrap()).is_none());
        held.pop();
        assert!(places.take("198.51.100.1".parse().unwrap()).is_some());
        drop(held);
        let taken = places.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_address.is_empty(), "{taken:?}");
    }
}

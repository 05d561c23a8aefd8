//! The networks that Parlor must find its way in.
//!
//! Public addresses are those set aside for documentation (RFC 5737), so that nothing here can be mistaken
//! for somebody's. The core of [`Internet`] drops private addresses silently, as the real one mostly does:
//! dialling a private address of another site fails by silence, the slowest way.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use super::host::{Cable, Host, Switch};
use super::router::{Nat, Router};
use super::{Lab, write_sysctl};

/// One local network with the Room, Foo and Bar on it: 192.168.1.0/24.
#[derive(Debug)]
pub struct Lan {
    /// The host of the Room, at .2.
    pub room: Host,
    /// Foo's host, at .10.
    pub foo: Host,
    /// Bar's host, at .11.
    pub bar: Host,
    /// The cables of Room, Foo and Bar.
    pub cables: [Cable; 3],
    /// The laboratory itself.
    pub lab: Lab,
}

impl Lan {
    /// Builds it.
    pub fn build(mut lab: Lab) -> Result<Self> {
        let switch = lab.switch("lan")?;
        let (room, foo, bar) = (lab.host("room")?, lab.host("foo")?, lab.host("bar")?);
        let cables = [
            room.plug(&switch, "192.168.1.2/24")?,
            foo.plug(&switch, "192.168.1.10/24")?,
            bar.plug(&switch, "192.168.1.11/24")?,
        ];
        Ok(Self { room, foo, bar, cables, lab })
    }

    /// The Room's address.
    pub fn room_ip(&self) -> IpAddr {
        self.cables[0].ip()
    }
}

/// Where a host is on the [`Internet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// On the Internet itself, with an address that everybody reaches.
    Open,
    /// In a local network of its own behind a router.
    Behind {
        /// The router.
        nat: Nat,
        /// The third number of the local network's addresses: 192.168.N.0/24.
        lan: u8,
        /// The host's own number in it.
        host: u8,
    },
}

impl Site {
    /// Behind the usual home router, in 192.168.N.0/24 as number 10.
    pub fn home(lan: u8) -> Self {
        Site::Behind { nat: Nat::HOME, lan, host: 10 }
    }
}

/// The Room, Foo and Bar at three sites of an internet.
///
/// The Room is at 203.0.113.10. Foo's site has 198.51.100.20 for its public address, Bar's 198.51.100.130.
#[derive(Debug)]
pub struct Internet {
    /// What routes between the sites.
    pub core: Host,
    /// The host of the Room.
    pub room: Host,
    /// Foo's host.
    pub foo: Host,
    /// Bar's host.
    pub bar: Host,
    /// Foo's router, if it has one.
    pub foo_router: Option<Router>,
    /// Bar's router, if it has one.
    pub bar_router: Option<Router>,
    /// The cables of Room, Foo and Bar.
    pub cables: [Cable; 3],
    /// The laboratory itself.
    pub lab: Lab,
}

const ROOM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const FOO: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const BAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 130);

impl Internet {
    /// Builds it with Foo and Bar at these sites.
    pub fn build(mut lab: Lab, foo: Site, bar: Site) -> Result<Self> {
        let core = lab.host("core")?;
        write_sysctl(&core, "ipv4/ip_forward", "1")?;
        for private in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] {
            core.ip(&["route", "add", "blackhole", private])?;
        }
        let room_network = network(&mut lab, &core, "net-room", "203.0.113.1/24")?;
        let room = lab.host("room")?;
        let room_cable = room.plug(&room_network, "203.0.113.10/24")?;
        room.default_route(IpAddr::from([203, 0, 113, 1]))?;

        let foo_network = network(&mut lab, &core, "net-foo", "198.51.100.1/25")?;
        let (foo, foo_cable, foo_router) =
            place(&mut lab, "foo", foo, (&foo_network, FOO, [198, 51, 100, 1].into()))?;
        let bar_network = network(&mut lab, &core, "net-bar", "198.51.100.129/25")?;
        let (bar, bar_cable, bar_router) =
            place(&mut lab, "bar", bar, (&bar_network, BAR, [198, 51, 100, 129].into()))?;
        let cables = [room_cable, foo_cable, bar_cable];
        Ok(Self { core, room, foo, bar, foo_router, bar_router, cables, lab })
    }

    /// Both behind home routers, in different networks, with nothing open.
    pub fn closed(lab: Lab) -> Result<Self> {
        Self::build(lab, Site::home(1), Site::home(2))
    }

    /// Foo behind a home router; Bar on the open Internet.
    pub fn bar_open(lab: Lab) -> Result<Self> {
        Self::build(lab, Site::home(1), Site::Open)
    }

    /// Both behind home routers; Bar's hands connections to `port` on to Bar.
    pub fn bar_forwarded(lab: Lab, port: u16) -> Result<Self> {
        let internet = Self::closed(lab)?;
        if let Some(router) = &internet.bar_router {
            router.forward_port(port, (internet.cables[2].ip(), port).into())?;
        }
        Ok(internet)
    }

    /// Two local networks that look alike, 192.168.1.0/24 both, with Foo and Bar even at the same address.
    pub fn twins(lab: Lab) -> Result<Self> {
        Self::build(lab, Site::home(1), Site::home(1))
    }

    /// The Room's address.
    pub fn room_ip(&self) -> IpAddr {
        ROOM.into()
    }

    /// Bar's address as the Internet sees it.
    pub fn bar_public_ip(&self) -> IpAddr {
        BAR.into()
    }

    /// Foo's address as the Internet sees it.
    pub fn foo_public_ip(&self) -> IpAddr {
        FOO.into()
    }

    /// Cuts Bar's site off from the Room alone.
    pub fn cut_bar_from_room(&self) -> Result<()> {
        self.room.block(self.bar_public_ip())
    }
}

/// A network of the core's, with the core as its gateway.
fn network(lab: &mut Lab, core: &Host, name: &str, gateway: &str) -> Result<Switch> {
    let switch = lab.switch(name)?;
    core.plug(&switch, gateway)?;
    Ok(switch)
}

/// A host at a site, its own cable and its router. `uplink`: the network, the site's address and the gateway.
fn place(
    lab: &mut Lab,
    name: &str,
    site: Site,
    uplink: (&Switch, Ipv4Addr, IpAddr),
) -> Result<(Host, Cable, Option<Router>)> {
    let (network, public, gateway) = uplink;
    let public = format!("{public}/25");
    let host = lab.host(name)?;
    match site {
        Site::Open => {
            let cable = host.plug(network, &public)?;
            host.default_route(gateway)?;
            Ok((host, cable, None))
        }
        Site::Behind { nat, lan, host: number } => {
            let switch = lab.switch(&format!("{name}-lan"))?;
            let own = format!("192.168.{lan}.1/24");
            let router =
                Router::new(lab, &format!("{name}-router"), (&switch, &own), (network, &public), nat)?;
            router.host.default_route(gateway)?;
            let cable = host.plug(&switch, &format!("192.168.{lan}.{number}/24"))?;
            host.default_route(router.inside.ip())?;
            Ok((host, cable, Some(router)))
        }
    }
}

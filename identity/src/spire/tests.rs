//! The agent against a server that the tests play.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use spiffe::{SpiffeId, TrustDomain};

use super::*;
use crate::clock::Clock;
use crate::encoding;
use crate::metrics::IdentityMetrics;
use crate::source::SvidSource;
use crate::svid::{Identities, X509Svid};
use world::{TRUST_DOMAIN, World};

mod attestation;
mod authority;
mod desk;
mod entries;
mod server;
mod signing;
mod start;
mod staying;
mod world;

/// A test moves it; it begins at the machine's own time, since tokens are verified by that.
#[derive(Debug)]
struct TestClock(Mutex<SystemTime>);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// A server, and the directory of an agent.
struct Stage {
    world: Arc<Mutex<World>>,
    clock: Arc<TestClock>,
    directory: tempfile::TempDir,
    config: AgentConfig,
}

impl Stage {
    async fn new() -> Self {
        Self::with_connections_of(None).await
    }

    async fn with_connections_of(age: Option<Duration>) -> Self {
        let now = crate::clock::SystemClock.now();
        let clock = Arc::new(TestClock(Mutex::new(now)));
        let world = World::new(Arc::clone(&clock));
        let directory = tempfile::tempdir().unwrap();
        let bootstrap = directory.path().join("bootstrap.pem");
        let root = &world.signer().root;
        std::fs::write(&bootstrap, encoding::certificates_pem([root])).unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "token\n").unwrap();
        let world = Arc::new(Mutex::new(world));
        let address = server::serve(Arc::clone(&world), age).await;
        let config = AgentConfig {
            server: address.to_string(),
            trust_domain: TrustDomain::new(TRUST_DOMAIN).unwrap(),
            bootstrap: Bootstrap::File(bootstrap),
            attestation: NodeAttestation::JoinToken(token),
            directory: directory.path().to_owned(),
            sync_interval: SYNC_INTERVAL,
            audience_rules: Vec::new(),
        };
        Self {
            world,
            clock,
            directory,
            config,
        }
    }

    fn agent(&self) -> SpireAgent {
        self.try_agent().unwrap()
    }

    fn try_agent(&self) -> Result<SpireAgent, SpireError> {
        let clock = Arc::clone(&self.clock);
        SpireAgent::new(self.config.clone(), clock, IdentityMetrics::default())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How many SVIDs of the agent are kept, and that nobody else can read them.
    fn kept(&self) -> usize {
        let path = self.file("spire_agent.json");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(path).unwrap();
        text.matches("BEGIN PRIVATE KEY").count()
    }
}

fn identities(agent: &SpireAgent) -> Arc<Identities> {
    Arc::clone(&agent.watch().borrow())
}

fn svid(agent: &SpireAgent, name: &str) -> Option<Arc<X509Svid>> {
    let id = SpiffeId::new(format!("spiffe://{TRUST_DOMAIN}/{name}")).unwrap();
    identities(agent).svid(&id).cloned()
}

/// The paths of all SVIDs, in their order.
fn paths(agent: &SpireAgent) -> Vec<String> {
    let identities = identities(agent);
    let issued = identities.issued().iter();
    issued.map(|it| it.svid.id().path().to_owned()).collect()
}

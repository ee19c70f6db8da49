//! A pool leased by a caller that is no session, and that has no `initialize`: as a stateless request needs it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use sluice::auth::{Issuer, Principal};
use sluice::config::{Config, Isolation, Server};
use sluice::jsonrpc::parse;
use sluice::memory::{Account, Memory};
use sluice::permits::Permits;
use sluice::pool::{Children, Deployments, Pool, Pools, Surroundings, Wanted};
use sluice::process::{Ceilings, Folders, GuardianSupervisor, Neighbours};
use sluice::stream::{Budget, Exchange, Outbox};
use sluice::telemetry::Metrics;
use sluice::worker::{Ask, Lease, Nobody};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::harness::{PATIENCE, eventually, fixture, in_time};

/// The pools of a gateway, and nothing else of it.
struct Lone {
    pools: Pools,
    deployments: Deployments,
    surroundings: Surroundings,
    supervisor: JoinHandle<()>,
    stop_guardian: CancellationToken,
}

impl Lone {
    fn start(server: Server) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_sluice"));
        let (supervisor, guardian) =
            GuardianSupervisor::start(program, Neighbours::Some, None, Folders::new(None), None).unwrap();
        let stop_guardian = CancellationToken::new();
        let supervisor = tokio::spawn(supervisor.run(stop_guardian.clone()));
        let config = Config::for_servers([server]);
        let surroundings = Surroundings {
            ceilings: Ceilings::new(&config.tenants, &guardian, Counter::default()),
            permits: Permits::default(),
            memory: Memory::new(1 << 30),
            children: Children::default(),
            guardian,
            slow_client_timeout: PATIENCE,
            spawn_concurrency: 2,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let pools = Pools::new(Arc::new(Metrics::default()), surroundings.clone());
        let deployments = pools.deploy(&config, &Deployments::new());
        Self { pools, deployments, surroundings, supervisor, stop_guardian }
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.deployments["fixture"].pool
    }

    async fn lease(&self, subject: &str) -> Arc<Lease> {
        let wanted = Wanted {
            principal: Principal::new("default".parse().unwrap(), Issuer::Key, subject, Vec::new()),
            caller: "a-test".into(),
            initialize: None,
            is_restart: false,
            replaces: Vec::new(),
            holder: Nobody::holder(),
        };
        let granted = in_time("a lease", self.pool().lease(&wanted)).await.unwrap();
        assert_eq!(granted.answer, None, "nothing was asked");
        granted.lease
    }

    async fn finish(self) {
        self.surroundings.draining.cancel();
        self.surroundings.tasks.close();
        in_time("every child ends", self.surroundings.tasks.wait()).await;
        assert!(self.pools.workers().is_empty());
        self.stop_guardian.cancel();
        in_time("the guardian ends", self.supervisor).await.unwrap();
    }
}

/// What a tool of the server answers.
async fn call(lease: &Lease, tool: &str) -> String {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
    let message = message.to_string();
    let envelope = parse(message.as_bytes()).unwrap();
    let (outbox, mut cursor) = Outbox::new(Budget { messages: 4, bytes: 1 << 20 });
    let exchange = Arc::new(Exchange::of_request(outbox, 1, &Account::unlimited()));
    let ask = Ask { envelope: &envelope, exchange: &exchange, timeout: PATIENCE, is_own: false };
    lease.call(&ask, None).unwrap();
    let answer = in_time("an answer", cursor.next()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.message).unwrap();
    assert_eq!(answer["id"], 7);
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_caller_without_a_session_and_without_initialize_leases_a_child_of_its_own() {
    let lone = Lone::start(fixture("echo"));
    let (first, second) = (lone.lease("ann").await, lone.lease("ann").await);
    let pids = [call(&first, "pid").await, call(&second, "pid").await];
    assert_ne!(pids[0], pids[1]);
    // The child has not been told of any client.
    assert_eq!(call(&first, "notifications_received").await, "[]");
    assert_eq!(lone.pools.workers().len(), 2);
    // A lease that is dropped takes its child along.
    drop(first);
    eventually("one is left", async || (lone.pools.workers().len() == 1).then_some(())).await;
    assert_eq!(call(&second, "pid").await, pids[1]);
    drop(second);
    lone.finish().await;
}

#[tokio::test]
async fn callers_without_a_session_share_a_child_and_its_successor() {
    let mut server = fixture("echo");
    server.isolation = Isolation::Tenant;
    server.pool.max_children = 1;
    server.keep_children = true;
    server.pool.queue_timeout = Duration::from_secs(10);
    let lone = Lone::start(server);
    let (first, second) = (lone.lease("ann").await, lone.lease("bob").await);
    let pid = call(&first, "pid").await;
    assert_eq!(call(&second, "pid").await, pid);
    // At the ceiling, the successor has the capacity of the child that is gone.
    first.worker().stop();
    in_time("the end of the child", first.worker().ended()).await;
    drop((first, second));
    let third = lone.lease("ann").await;
    assert_ne!(call(&third, "pid").await, pid);
    drop(third);
    lone.finish().await;
}

import MPIO
import Multipath
import Timebase

// Faults of one connection of a session that has several.
extension FaultMaker {
    func onConnection(_ kind: FaultKind) -> Bool {
        guard let plan = scenario.connections else { return false }
        let candidates = (0..<scenario.pathCount).filter { $0 != self.plan.sparedPath }
        guard !candidates.isEmpty else { return false }
        let path = random.pick(candidates)
        if kind == .connectionPolicy {
            let policy = PolicySettings(random.pick(ConnectionPlan.policies), options: Scenario.drawPolicy(random).options)
            let session = paths[path]
            port.perform { _ = session.setConnectionPolicy(policy) }
            return true
        }
        guard plan.hasOwnPortals else { return onSharedLink(kind, network.links(of: path)[0]) }
        let places = network.links(of: path).indices.filter { $0 != plan.sparedConnection }
        let link = network.links(of: path)[random.pick(places)]
        let lasting = random.spreadDuration(.milliseconds(20)...(.seconds(8)))
        switch kind {
        case .connectionReset: network.reset(link)
        case .connectionSilence: silence(link, [Link.toTarget, Link.toInitiator], lasting)
        case .connectionSilenceToTarget: silence(link, [Link.toTarget], lasting)
        case .connectionSilenceToInitiator: silence(link, [Link.toInitiator], lasting)
        case .connectionSlow: slow(link, lasting)
        case .connectionSlowCut:
            slow(link, lasting)
            later(random.spreadDuration(.milliseconds(1)...(.milliseconds(400)))) { [network] in network.reset(link) }
        case .connectionRefused: return disablePortals([link], lasting)
        case .connectionDigest: link.directions[random.below(2)].corruptions += random.within(1...2)
        case .connectionLogout, .connectionDropped: return byTarget(kind, link)
        default: return false
        }
        return true
    }

    private func slow(_ link: Link, _ lasting: Duration) {
        let extra = random.duration(.milliseconds(1)...(.milliseconds(200)))
        for direction in link.directions.indices where random.chance(percent: 70) {
            link.directions[direction].extraLatency = extra
        }
        later(lasting) { for direction in link.directions.indices { link.directions[direction].extraLatency = .zero } }
    }

    /// All connections of the session go over one network: what can be done to one of them is little.
    private func onSharedLink(_ kind: FaultKind, _ link: Link) -> Bool {
        switch kind {
        case .connectionReset, .connectionSlowCut:
            let ends = link.connections.filter { $0.direction == Link.toTarget }
            guard !ends.isEmpty else { return false }
            network.reset(random.pick(ends))
            return true
        case .connectionDigest: link.directions[random.below(2)].corruptions += 1
        case .connectionLogout, .connectionDropped: return byTarget(kind, link)
        default: return false
        }
        return true
    }

    /// The target wants a connection to go, or says that it drops it.
    private func byTarget(_ kind: FaultKind, _ link: Link) -> Bool {
        let (target, portal) = place(link)
        guard target.isRunning, let id = connectionIDs(link).randomElement(random) else { return false }
        if kind == .connectionLogout {
            target.requestLogout(portal: portal, connectionID: id)
            return true
        }
        // Any connection of the session may bring the message.
        let teller = random.pick(network.links(of: link.path))
        let told = connectionIDs(teller).randomElement(random) ?? id
        target.dropConnections(portal: portal, connectionID: id, tellingAt: place(teller).1, on: told)
        return true
    }

    private func connectionIDs(_ link: Link) -> [UInt16] {
        link.connections.filter { $0.direction == Link.toTarget && $0.phase == .open }.compactMap(wireOracle.connectionID)
    }
}

extension Array {
    fileprivate func randomElement(_ random: SeededRandom) -> Element? { isEmpty ? nil : random.pick(self) }
}

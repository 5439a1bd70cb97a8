import AsyncIO
import ISCSI
import SCSI
import Timebase

/// Why a fault cannot be set.
public enum FaultError: Error, Hashable, Sendable {
    case noSuchPortal(Int)
    case noSuchNode(String)
    case noSuchGroup(UInt16)
    case noSuchUnit(Int)
    /// More blocks than the unit's storage holds.
    case capacityTooLarge(blockCount: UInt64, held: UInt64)
}

extension FaultError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noSuchPortal(let index): "there is no portal \(index)"
        case .noSuchNode(let name): "there is no target \(name)"
        case .noSuchGroup(let tag): "there is no portal group \(tag)"
        case .noSuchUnit(let number): "there is no LUN \(number)"
        case .capacityTooLarge(let count, let held): "\(count) blocks are more than the \(held) that the unit's storage holds"
        }
    }
}

/// A fault that is set.
public struct FaultStatus: Hashable, Sendable, Codable {
    public var id: Int
    public var fault: FaultCommand
    /// Commands that its conditions let through, and those of them that it struck.
    public var matchedCommands: UInt64
    public var struckCommands: UInt64
    /// It has begun; otherwise it waits for its time or its command.
    public var isActive: Bool
}

/// What a control surface asks.
public enum FaultRequest: Hashable, Sendable, Codable {
    case set([FaultCommand])
    /// By their numbers: all or, where one is not set, none.
    case clear([Int])
    case clearAll
    case list
    /// Executes the commands that faults hold.
    case releaseHeld
}

public enum FaultReply: Hashable, Sendable, Codable {
    /// All that are set now.
    case faults([FaultStatus])
    case refused(String)
}

// Setting faults. All of it on the port's thread.
extension EmbeddedTarget {
    /// Sets a fault, beside those that are set. Its number ends it again; faults that are over end by themselves.
    @discardableResult
    public func setFault(_ fault: FaultCommand) throws(FaultError) -> Int {
        try check(fault)
        lastFaultID += 1
        let schedule = faults ?? FaultSchedule(target: self, random: faultRandom)
        faults = schedule
        schedule.set(fault, id: lastFaultID)
        return lastFaultID
    }

    /// Ends a fault and undoes what it did; a number that is not set is ignored.
    public func clearFault(_ id: Int) { faults?.clear(id) }

    public func clearFaults() {
        while let first = faults?.faults.first { faults?.clear(first.id) }
    }

    public var faultStatus: [FaultStatus] {
        (faults?.faults ?? []).map {
            FaultStatus(
                id: $0.id, fault: $0.command, matchedCommands: $0.matched, struckCommands: $0.struck,
                isActive: $0.phase == .begun)
        }
    }

    public func perform(_ request: FaultRequest) -> FaultReply {
        switch request {
        case .set(let commands):
            do throws(FaultError) {
                // All or none.
                for command in commands { try check(command) }
                for command in commands { try setFault(command) }
            } catch {
                return .refused(error.description)
            }
        case .clear(let ids):
            let known = faultStatus.map(\.id)
            if let id = ids.first(where: { !known.contains($0) }) { return .refused("there is no fault \(id)") }
            for id in ids { clearFault(id) }
        case .clearAll: clearFaults()
        case .list: break
        case .releaseHeld: for token in heldTokens { release(token) }
        }
        return .faults(faultStatus)
    }

    private func check(_ fault: FaultCommand) throws(FaultError) {
        let trigger = fault.trigger
        if let index = trigger.portal, !portals.indices.contains(index) { throw .noSuchPortal(index) }
        if let name = trigger.node, !accessPoints.contains(where: { $0.name == name }) { throw .noSuchNode(name) }
        if let tag = trigger.group, !portals.contains(where: { $0.groupTag == tag }) { throw .noSuchGroup(tag) }
        if let number = trigger.lun, !devices.contains(where: { $0.unit(number) != nil }) { throw .noSuchUnit(number) }
        if case .capacity(let count) = fault.kind {
            let units = units(of: trigger)
            if let small = units.first(where: { $0.backendBlockCount < count }) {
                throw .capacityTooLarge(blockCount: count, held: small.backendBlockCount)
            }
        }
    }

    /// A fault ended by itself or was ended.
    func faultsChanged() {
        guard let schedule = faults, schedule.faults.isEmpty else { return }
        faultRandom = schedule.randomState
        faults = nil
    }

    // MARK: whom it concerns

    private func portals(of fault: ActiveFault) -> [Int] {
        portals.indices.filter { fault.concerns(portal: $0, group: portals[$0].groupTag, nodes: portals[$0].nodes) }
    }

    private func sockets(of fault: ActiveFault) -> [TargetSocket] {
        portals(of: fault).flatMap { portals[$0].sockets }.filter { socket in
            if let wanted = fault.trigger.connection, wanted != socket.connectionID { return false }
            guard let name = fault.trigger.node else { return true }
            return socket.connection.session?.identity.targetName == name
        }
    }

    private func units(of trigger: FaultTrigger) -> [LogicalUnit] {
        let device = trigger.node.flatMap { name in accessPoints.first { $0.name == name }?.device }
        return devices.filter { device == nil || $0 === device }.flatMap(\.units).filter {
            trigger.lun == nil || $0.number == trigger.lun
        }
    }

    // MARK: commands

    /// Whether a fault took the command.
    func isStruck(
        _ command: DeviceCommand, _ unit: LogicalUnit, _ portal: Int, _ session: TargetSession, _ slot: Int,
        _ connection: TargetConnection?
    ) -> Bool {
        guard let faults else { return false }
        let group = unit.node.portGroups[command.portGroup]
        let decision = faults.decide(
            command, unit: unit.number, portal: portal, group: group.tag, node: group.nodeName,
            connection: connection?.connectionID)
        switch decision {
        case .execute: return false
        case .answer(let status, let sense): answer(command, status, sense)
        case .reject(let reason):
            (session.reject(slot, reason)?.owner as? TargetSocket)?.requestSend()
        case .lose: session.aborted(slot)
        case .hold(let outlives):
            held.append(HeldCommand(command: command, unit: unit, outlivesSession: outlives))
        }
        return true
    }

    // MARK: links

    func impairment(of socket: TargetSocket) -> LinkImpairment {
        let portal = portals[socket.portal]
        if portal.isSilent || socket.hangs { return .silence }
        return faults?.impairment(
            portal: socket.portal, group: portal.groupTag, nodes: portal.nodes, connection: socket.connectionID) ?? LinkImpairment()
    }

    func updateImpairments() {
        for (index, portal) in portals.enumerated() {
            let hangs = faults?.hangsLogins(portal: index, group: portal.groupTag, nodes: portal.nodes) ?? false
            for socket in portal.sockets {
                if !hangs { socket.hangs = false }
                socket.setImpairment(impairment(of: socket))
            }
        }
    }

    func resetConnections(_ fault: ActiveFault) {
        for socket in sockets(of: fault) { drop(socket) }
    }

    func spoilDigests(_ fault: ActiveFault, _ place: FaultKind.DigestPlace) {
        for socket in sockets(of: fault) {
            switch place {
            case .header: socket.connection.headerDigestsToSpoil += 1
            case .data: socket.connection.dataDigestsToSpoil += 1
            }
        }
    }

    func requestLogout(_ fault: ActiveFault, _ time: Duration) {
        for socket in sockets(of: fault) {
            socket.askedToLeave = true
            socket.connection.sendAsyncMessage(.logoutRequested(withinSeconds: UInt16(clamping: time.components.seconds)))
            socket.requestSend()
        }
    }

    func announceDrop(_ fault: ActiveFault) {
        for socket in sockets(of: fault) {
            guard let id = socket.connectionID, let session = socket.connection.session else { continue }
            socket.askedToLeave = true
            let carrier = session.allConnections.first { $0 !== socket.connection } ?? socket.connection
            carrier.sendAsyncMessage(
                .connectionDrops(
                    connectionID: id, time2Wait: UInt16(clamping: session.parameters.defaultTime2Wait),
                    time2Retain: UInt16(clamping: session.parameters.defaultTime2Retain)))
            (carrier.owner as? TargetSocket)?.requestSend()
        }
    }

    func dropLingering(_ fault: ActiveFault) {
        for socket in sockets(of: fault) where socket.askedToLeave { drop(socket) }
    }

    // MARK: groups and units

    func changeStates(_ fault: ActiveFault, _ state: AccessState) {
        for device in devices {
            for group in device.portGroups {
                let isMeant = portals(of: fault).contains {
                    portals[$0].groupTag == group.tag && portals[$0].nodes.contains(group.nodeName)
                }
                guard isMeant, fault.trigger.node == nil || fault.trigger.node == group.nodeName else { continue }
                device.setState(state, ofGroupTag: group.tag)
                fault.undo.append { device.setState(group.state, ofGroupTag: group.tag) }
            }
        }
    }

    func changeIdentity(_ fault: ActiveFault, _ identity: [UInt8]?) {
        for unit in units(of: fault.trigger) {
            let (old, serial) = (unit.identity, unit.serial)
            let other = serial + "-" + String(fault.id)
            unit.setIdentity(identity ?? UnitIdentity.naa6(serial: other), serial: other)
            fault.undo.append { unit.setIdentity(old, serial: serial) }
        }
    }

    func changeCapacity(_ fault: ActiveFault, _ count: UInt64) {
        for unit in units(of: fault.trigger) {
            let old = unit.blockCount
            unit.setBlockCount(count)
            // A disk may have shrunk meanwhile.
            fault.undo.append { unit.setBlockCount(min(old, unit.backendBlockCount)) }
        }
    }

    // MARK: power

    func restart(_ fault: ActiveFault, downFor time: Duration) {
        restart(portals: portals(of: fault), downFor: time)
    }

    /// A node (all: nil) loses its power: its connections are reset, its portals refuse for this time, and whoever comes
    /// back is told POWER ON. Units lose what is not saved when no other node holds them: the other controller of an array
    /// keeps reservations and mode parameters.
    public func restart(node name: String? = nil, downFor time: Duration = .zero) {
        restart(portals: portals.indices.filter { name == nil || portals[$0].nodes.contains(name!) }, downFor: time)
    }

    private func restart(portals indexes: [Int], downFor time: Duration) {
        for index in indexes { portals[index].isDown = true }
        updateListening()
        for index in indexes { dropConnections(portal: index) }
        for device in devices {
            let groups = device.portGroups.indices.filter { group in
                indexes.contains {
                    portals[$0].groupTag == device.portGroups[group].tag
                        && portals[$0].nodes.contains(device.portGroups[group].nodeName)
                }
            }
            for group in groups { device.portGroupRestarted(group) }
            guard groups.count == device.portGroups.count else { continue }
            for unit in device.units {
                do throws(IOError) {
                    try unit.powerCycle()
                } catch {
                    onProblem?(.reservationsUnreadable(unit: unit.number, error))
                }
            }
        }
        if time <= .zero { return powerOn(indexes) }
        let power = PowerSwitch(target: self, portals: indexes)
        _ = port.setTimer(at: port.now + time, handler: power, token: 0)
    }

    fileprivate func powerOn(_ indexes: [Int]) {
        for index in indexes { portals[index].isDown = false }
        guard !updateListening() else { return }
        // The address is taken at the moment: again, until it is free.
        let power = PowerSwitch(target: self, portals: [])
        _ = port.setTimer(at: port.now + .milliseconds(100), handler: power, token: 0)
    }
}

/// Brings portals back after their node was down.
private final class PowerSwitch: TimerHandler {
    private weak var target: EmbeddedTarget?
    private let portals: [Int]

    init(target: EmbeddedTarget, portals: [Int]) {
        self.target = target
        self.portals = portals
    }

    func timerFired(_ timer: TimerID, token: UInt64) { target?.powerOn(portals) }
}

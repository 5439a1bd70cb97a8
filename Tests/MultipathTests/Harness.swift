import SCSI
import Testing
import Timebase

@testable import Multipath

extension Instant {
    static func seconds(_ value: Double) -> Instant { Instant(nanoseconds: UInt64(value * 1e9)) }
}

/// A PseudoLUN with a clock of its own and an engine that only writes down what it is asked to do, and
/// checks at every action what must always hold.
final class Harness {
    struct Copy: Equatable {
        var request: RequestIndex
        var path: PathIndex
    }

    let lun: PseudoLUN
    var now: Instant
    /// In flight by the LUN's books, in the order of issue.
    var inFlight: [Copy] = []
    var issued: [Copy] = []
    var withdrawn: [Copy] = []
    var finished: [(request: RequestIndex, result: RequestResult)] = []
    var events: [MultipathEvent] = []
    var connects: [PathIndex] = []
    var probes: [(path: PathIndex, reason: ProbeReason)] = []
    var fences: [(path: PathIndex, step: FenceStep)] = []
    var disconnects: [PathIndex] = []
    var drops: [PathIndex] = []
    var aborted: [Copy] = []
    var transitions: [ExplicitTransition] = []
    var admitted: [UInt32: RequestDescriptor] = [:]
    /// How much was finished when a slot was given out last.
    var finishedBefore: [UInt32: Int] = [:]
    var finishCount = 0
    var admitCount = 0

    static let identity = LogicalUnitIdentity.naa6(high: 0x6001_4050_0000_0001, low: 1)

    static func device(
        identity: LogicalUnitIdentity? = Harness.identity, blockCount: UInt64 = 1 << 21,
        blockSize: UInt32 = 512, alua: TargetPortGroupSupport = [], group: UInt16? = nil,
        port: UInt16? = nil
    ) -> DeviceDescription {
        DeviceDescription(
            identity: identity, vendor: "LIO-ORG", product: "disk0", blockSize: blockSize,
            blockCount: blockCount, targetPortGroupSupport: alua, targetPortGroup: group,
            relativeTargetPort: port)
    }

    init(
        _ settings: LUNSettings = LUNSettings(), capacity: Int = 64, dsm: (any DeviceSpecificModule)? = nil
    ) {
        now = .seconds(1000)
        lun =
            if let dsm {
                PseudoLUN(name: "test", settings: settings, dsm: dsm, requestCapacity: capacity)
            } else {
                PseudoLUN(name: "test", settings: settings, requestCapacity: capacity)
            }
    }

    /// With `count` paths a, b, c … that are up.
    convenience init(
        policy: PolicyKind, options: PolicyOptions = PolicyOptions(), paths count: Int,
        weights: [UInt16] = [], standbys: Set<Int> = [], capacity: Int = 64,
        _ change: (inout LUNSettings) -> Void = { _ in }
    ) {
        var settings = LUNSettings(policy: PolicySettings(policy, options: options))
        change(&settings)
        self.init(settings, capacity: capacity)
        for index in 0..<count {
            let path = add(
                String(UnicodeScalar(UInt8(97 + index))), role: standbys.contains(index) ? .standby : .primary,
                weight: index < weights.count ? weights[index] : 1)
            up(path)
        }
        events.removeAll()
    }

    // MARK: Doing

    @discardableResult
    func add(
        _ name: String, role: PathRole = .primary, weight: UInt16 = 1, order: Int = 0,
        load: PathLoad = PathLoad(), transport: TransportKind = .iSCSI
    ) -> PathIndex {
        let path = lun.addPath(
            PathSettings(name: name, role: role, weight: weight, order: order), load: load,
            transport: transport, at: now)
        drain()
        return path
    }

    func up(
        _ path: PathIndex, device: DeviceDescription = Harness.device(), state: AccessState = .optimized,
        groups: [TargetPortGroup] = []
    ) {
        lun.pathLoggedIn(path, at: now)
        drain()
        lun.pathConnected(
            path, PathReport(device: device, accessState: state, targetPortGroups: groups), at: now)
        drain()
    }

    /// Back, with its ABORT TASK SET answered.
    func reinstate(_ path: PathIndex, _ result: FenceResult = .done) {
        up(path)
        lun.fenceResult(path, .abortTaskSet, result, at: now)
        drain()
    }

    func down(_ path: PathIndex, _ reason: PathFailureReason = .connectionReset) {
        inFlight.removeAll { $0.path == path }
        lun.pathFailed(path, PathFailure(reason), at: now)
        drain()
    }

    @discardableResult
    func admit(_ descriptor: RequestDescriptor) -> RequestIndex? {
        guard let request = lun.admit(descriptor, at: now) else { return nil }
        #expect(admitted[request.slot] == nil, "slot \(request.slot) was given out twice")
        // Known before its actions are looked at.
        admitted[request.slot] = descriptor
        finishedBefore[request.slot] = finished.count
        admitCount += 1
        drain()
        return request
    }

    @discardableResult
    func read(_ lba: UInt64 = 0, blocks: UInt32 = 8) -> RequestIndex? {
        admit(RequestDescriptor(kind: .read, lba: lba, blockCount: blocks, byteCount: blocks * 512))
    }

    @discardableResult
    func write(_ lba: UInt64 = 0, blocks: UInt32 = 8) -> RequestIndex? {
        admit(RequestDescriptor(kind: .write, lba: lba, blockCount: blocks, byteCount: blocks * 512))
    }

    func complete(_ copy: Copy, _ outcome: PathOutcome = .good) {
        inFlight.removeAll { $0 == copy }
        lun.completed(copy.request, on: copy.path, outcome: outcome, at: now)
        drain()
    }

    /// Ends the live attempt of a request.
    func complete(_ request: RequestIndex?, _ outcome: PathOutcome = .good) {
        guard let request, let copy = inFlight.last(where: { $0.request.slot == request.slot }) else {
            Issue.record("the request is not in flight")
            return
        }
        complete(copy, outcome)
    }

    func completeAll() {
        while let copy = inFlight.first { complete(copy) }
    }

    func advance(_ duration: Duration) {
        let end = now + duration
        while lun.nextDeadline <= end {
            now = max(now, lun.nextDeadline)
            lun.timerFired(at: now)
            drain()
            if lun.nextDeadline <= now {
                lun.timerFired(at: now)
                drain()
                #expect(lun.nextDeadline > now, "the deadline does not move on")
                if lun.nextDeadline <= now { break }
            }
        }
        now = end
    }

    // MARK: Looking

    func path(of request: RequestIndex?) -> PathIndex? {
        inFlight.last { $0.request.slot == request?.slot }?.path
    }

    func result(of request: RequestIndex?) -> RequestResult? {
        guard let request, let start = finishedBefore[request.slot] else { return nil }
        return finished[start...].first { $0.request.slot == request.slot }?.result
    }

    func name(_ path: PathIndex?) -> String { path.map(lun.pathName) ?? "-" }

    /// Sends `count` reads, each completed at once, and says where they went.
    func route(_ count: Int, blocks: UInt32 = 8) -> String {
        (0..<count).map { _ in
            let request = read(blocks: blocks)
            let name = name(path(of: request))
            if name != "-" { complete(request) }
            return name
        }.joined()
    }

    func drain() {
        while let action = lun.nextAction() { note(action) }
    }

    private func note(_ action: PseudoLUNAction) {
        switch action {
        case .issue(let request, let path):
            check(request, path)
            inFlight.append(Copy(request: request, path: path))
            issued.append(Copy(request: request, path: path))
        case .finish(let request, let result):
            #expect(admitted[request.slot] != nil, "finished twice")
            admitted[request.slot] = nil
            finishCount += 1
            finished.append((request, result))
            inFlight.removeAll { $0.request.slot == request.slot }
        case .withdraw(let request, let path):
            let copy = Copy(request: request, path: path)
            #expect(inFlight.contains(copy))
            inFlight.removeAll { $0 == copy }
            withdrawn.append(copy)
        case .abort(let request, let path): aborted.append(Copy(request: request, path: path))
        case .drop(let path): drops.append(path)
        case .connect(let path): connects.append(path)
        case .probe(let path, let reason): probes.append((path, reason))
        case .disconnect(let path): disconnects.append(path)
        case .fence(let path, let step): fences.append((path, step))
        case .setTargetPortGroup(let path, let change): transitions.append(ExplicitTransition(path: path, change: change))
        case .event(let event): events.append(event)
        }
    }

    private func check(_ request: RequestIndex, _ path: PathIndex) {
        #expect(!inFlight.contains { $0.request.slot == request.slot }, "issued twice at a time")
        guard let descriptor = admitted[request.slot] else { return }
        guard descriptor.kind.changesBlocks else { return }
        for other in inFlight {
            guard let against = admitted[other.request.slot], against.kind.changesBlocks else { continue }
            #expect(
                !rangesOverlap(descriptor.lba, descriptor.blockCount, against.lba, against.blockCount),
                "two overlapping writes are in flight")
        }
    }

}

extension PathOutcome {
    static func sense(_ key: SenseKey, _ code: UInt8, _ qualifier: UInt8, deferred: Bool = false) -> PathOutcome {
        .status(
            .checkCondition,
            SenseData(key: key, additional: AdditionalSense(code, qualifier), isDeferred: deferred))
    }
}

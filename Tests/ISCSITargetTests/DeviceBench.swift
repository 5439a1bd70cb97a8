import ISCSI
import SCSI
import Testing

@testable import ISCSITarget

/// A logical unit with a client that keeps what it is told.
final class DeviceBench: DeviceClient {
    let node: TargetNode
    let pool = TargetBufferPool(limitByteCount: 256 << 20)
    private(set) var unit: LogicalUnit!
    var results: [UInt64: DeviceResult] = [:]
    var aborted: [UInt64] = []
    var managed: [UInt64] = []
    private var lastToken: UInt64 = 0
    private var buffers: [UInt64: UnsafeMutableRawBufferPointer] = [:]

    init(
        blockSize: Int = 512, byteCount: UInt64 = 16 << 20, backend: (any LogicalUnitBackend)? = nil,
        explicitTransitions: Bool = false, isReadOnly: Bool = false, reservationStore: (any ReservationStore)? = nil
    ) {
        node = TargetNode(
            name: "iqn.2026-11.org.example:disk", portGroupTags: [1, 2], allowsExplicitTransitions: explicitTransitions)
        var configuration = LogicalUnitConfiguration(number: 0, storage: .memory, byteCount: byteCount, blockSize: blockSize)
        configuration.isReadOnly = isReadOnly
        unit = LogicalUnit(
            configuration: configuration, backend: backend ?? MemoryBackend(byteCount: byteCount), node: node, pool: pool,
            client: self, reservationStore: reservationStore)
    }

    deinit { for buffer in buffers.values { buffer.deallocate() } }

    /// A nexus whose first unit attention was taken.
    func nexus(_ qualifier: UInt16 = 1, portGroup: Int = 0, isSettled: Bool = true) -> NexusIndex {
        let nexus = node.nexusStarted(
            NexusIdentity(
                initiatorName: "iqn.2026-11.org.example:host", isid: .random(1, qualifier: qualifier), portGroup: portGroup))
        if isSettled { _ = run(.testUnitReady(), nexus) }
        return nexus
    }

    /// Begins a command and returns its token.
    func begin(
        _ cdb: CommandDescriptorBlock, _ nexus: NexusIndex, dataOut: [UInt8] = [], attribute: TaskAttribute = .simple
    ) -> UInt64 {
        lastToken += 1
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: dataOut.count, alignment: 8)
        buffer.copyBytes(from: dataOut)
        buffers[lastToken] = buffer
        unit.execute(
            DeviceCommand(
                token: lastToken, nexus: nexus, portGroup: node.nexusPort(nexus).portGroup, attribute: attribute, cdb: cdb,
                dataOut: UnsafeRawBufferPointer(buffer)))
        return lastToken
    }

    struct Outcome {
        var status: SCSIStatus
        var sense: SenseData?
        var data: [UInt8]
        var additional: AdditionalSense? { sense?.additional }
    }

    /// What became of a command; its buffer goes back.
    func outcome(_ token: UInt64) -> Outcome? {
        guard let result = results.removeValue(forKey: token) else { return nil }
        let data = Array(result.data)
        pool.release(result.buffer)
        return Outcome(status: result.status, sense: result.sense, data: data)
    }

    /// A command that ends at once.
    @discardableResult
    func run(_ cdb: CommandDescriptorBlock, _ nexus: NexusIndex, dataOut: [UInt8] = []) -> Outcome {
        guard let outcome = outcome(begin(cdb, nexus, dataOut: dataOut)) else {
            Issue.record("the command did not end")
            return Outcome(status: .busy, sense: nil, data: [])
        }
        return outcome
    }

    func commandFinished(token: UInt64, result: DeviceResult) { results[token] = result }
    func commandAborted(token: UInt64) { aborted.append(token) }
    func taskManagementFinished(token: UInt64) { managed.append(token) }
}

/// A backend that answers when the test says so.
final class LateBackend: LogicalUnitBackend {
    let inner: MemoryBackend
    weak var client: (any BackendClient)?
    private(set) var pending: [UInt32] = []

    init(byteCount: UInt64 = 1 << 20) { inner = MemoryBackend(byteCount: byteCount) }

    var byteCount: UInt64 { inner.byteCount }
    var isThinlyProvisioned: Bool { true }
    func lend(offset: UInt64, byteCount: Int) -> UnsafeRawPointer? { nil }

    private func later(_ token: UInt32) -> BackendProgress {
        pending.append(token)
        return .pending
    }

    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        _ = inner.read(offset: offset, into: memory, token: token)
        return later(token)
    }
    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        _ = inner.write(offset: offset, from: memory, token: token)
        return later(token)
    }
    func synchronize(token: UInt32) -> BackendProgress { later(token) }
    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        _ = inner.deallocate(offset: offset, byteCount: byteCount, token: token)
        return later(token)
    }
    func mapping(at offset: UInt64) -> (isMapped: Bool, byteCount: UInt64) { inner.mapping(at: offset) }
    func close() {}

    /// Ends the oldest operation.
    func finishOne(_ failure: BackendFailure? = nil) {
        client?.backendCompleted(token: pending.removeFirst(), failure: failure)
    }
}

func bytes(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

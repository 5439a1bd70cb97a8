import ISCSI
import ISCSITarget
import SCSI
import Timebase

/// Stands before a target's device server: plays the faults that commands meet, and watches what arrives.
final class TargetFilter: CommandFilter {
    /// Such a fault for so many commands in a hundred, until then.
    struct Episode {
        var kind: FaultKind
        var percent: Int
        var end: Instant
    }

    weak var owner: SimulatedTarget?
    private let world: SimulatedWorld
    private let random: SeededRandom
    private let oracle: TargetOracle
    private let longestHold: Duration
    private let counts: FaultCounts
    private var episodes: [Episode] = []

    init(world: SimulatedWorld, oracle: TargetOracle, longestHold: Duration, counts: FaultCounts) {
        self.world = world
        self.oracle = oracle
        self.longestHold = longestHold
        self.counts = counts
        random = world.random.fork()
    }

    var holdsOutliveSessions: Bool { true }

    /// A command leaves its session's order.
    var ordered: (_ session: TargetSession, _ cmdSN: UInt32, _ isRead: Bool) -> Void = { _, _, _ in }

    func ordered(_ command: DeviceCommand, cmdSN: UInt32, in session: TargetSession) {
        ordered(session, cmdSN, command.cdb.decodedForSimulation == .read)
    }

    func begin(_ episode: Episode) { episodes.append(episode) }
    func endEpisodes() { episodes.removeAll() }
    func forgetHeld() {}

    func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
        guard let owner else { return .execute }
        let path = owner.portals[portal].path
        oracle.arrived(command, path: path, isForeign: owner.isForeign)
        episodes.removeAll { $0.end <= world.now }
        for episode in episodes where random.chance(percent: episode.percent) {
            if let decision = play(episode.kind, command, path) {
                counts.count(episode.kind)
                return decision
            }
        }
        return .execute
    }

    private func play(_ kind: FaultKind, _ command: DeviceCommand, _ path: Int) -> CommandDecision? {
        let parsed = command.cdb.decodedForSimulation
        switch kind {
        case .busy: return parsed == .control ? nil : .answer(.busy, nil)
        case .taskSetFull: return parsed == .control ? nil : .answer(.taskSetFull, nil)
        case .unitAttention:
            guard parsed != .control else { return nil }
            return .answer(.checkCondition, SenseData(key: .unitAttention, additional: random.pick(Self.attentions)))
        case .mediumError:
            guard parsed == .read || parsed == .write else { return nil }
            oracle.answeredFinally(command, path: path)
            let code: AdditionalSense = parsed == .read ? .unrecoveredReadError : .writeError
            return .answer(.checkCondition, SenseData(key: .mediumError, additional: code))
        case .lateExecution:
            guard parsed == .write || parsed == .read else { return nil }
            owner?.release(command.token, after: random.spreadDuration(.milliseconds(1)...longestHold))
            return .hold
        default: return nil
        }
    }

    private static let attentions: [AdditionalSense] = [
        .powerOnResetOrBusDeviceReset, .nexusLossOccurred, .modeParametersChanged, .accessStateChanged,
        .inquiryDataChanged, .reportedLUNsDataChanged, .capacityDataChanged, .commandsClearedByAnotherInitiator,
    ]
}

enum SimulatedCommandClass { case read, write, otherMedium, control }

extension CommandDescriptorBlock {
    /// What a simulated fault may do to it.
    var decodedForSimulation: SimulatedCommandClass {
        switch operationCode {
        case 0x28, 0x88: .read
        case 0x2A, 0x8A: .write
        case 0x35, 0x91, 0x42, 0x93, 0x89: .otherMedium
        default: .control
        }
    }

    var lbaForSimulation: Int {
        func field(_ offset: Int, _ count: Int) -> Int {
            (offset..<offset + count).reduce(0) { $0 << 8 | Int(bytes[$1]) }
        }
        return operationCode >> 5 == 4 ? field(2, 8) : field(2, 4)
    }
}

/// How often each kind of fault was made.
final class FaultCounts {
    private(set) var counts = [Int](repeating: 0, count: FaultKind.allCases.count)

    func count(_ kind: FaultKind) { counts[FaultKind.allCases.firstIndex(of: kind)!] += 1 }
    var byKind: [(FaultKind, Int)] { Array(zip(FaultKind.allCases, counts)) }
}

/// What must hold of every command that reaches a target.
final class TargetOracle {
    private let verdict: Verdict
    private let trace: Trace
    private let model: BlockModel
    private let bug: PlantedBug?
    /// How often any path went down or stalled, which is when a command may be sent again unanswered.
    var interruptions: () -> Int = { 0 }
    private var began: [BlockModel.Generation: Int] = [:]
    /// Writes that were answered by a status that ends them for good, and on which path. Each stripe of a write is one of its own.
    private var final: [Part: Int] = [:]

    private struct Part: Hashable {
        var generation: BlockModel.Generation
        var lba: Int
    }
    private(set) var commandCount = 0

    init(verdict: Verdict, trace: Trace, model: BlockModel, bug: PlantedBug?) {
        self.verdict = verdict
        self.trace = trace
        self.model = model
        self.bug = bug
    }

    func submitted(_ generation: BlockModel.Generation) { began[generation] = interruptions() }

    func arrived(_ command: DeviceCommand, path: Int, isForeign: Bool) {
        commandCount += 1
        trace.record(.targetCommand, UInt64(path), UInt64(command.cdb.operationCode), UInt64(command.cdb.lbaForSimulation))
        guard command.cdb.decodedForSimulation == .write else { return }
        if isForeign {
            return verdict.fail(.target, "a write on path \(path) went to another unit than the disk's")
        }
        check(command, path)
    }

    private func check(_ command: DeviceCommand, _ path: Int) {
        let lba = command.cdb.lbaForSimulation
        let size = model.blockSize
        for offset in 0..<command.dataOut.count / size {
            let bytes = UnsafeRawBufferPointer(rebasing: command.dataOut[offset * size..<(offset + 1) * size])
            guard let generation = BlockModel.generation(of: bytes, lba: lba + offset),
                generation == 0 || model.isWrite(generation, lba: lba + offset)
            else {
                return verdict.fail(.target, "a write to block \(lba + offset) on path \(path) carries other data: \(BlockModel.words(bytes))")
            }
            if offset == 0, generation > 0, let path = final[Part(generation: generation, lba: lba)], began[generation] == interruptions() {
                verdict.fail(.target, "write \(generation) came again although path \(path) delivered its final status")
            }
        }
    }

    func answeredFinally(_ command: DeviceCommand, path: Int) {
        guard command.cdb.decodedForSimulation == .write, command.dataOut.count >= model.blockSize else { return }
        let bytes = UnsafeRawBufferPointer(rebasing: command.dataOut[..<model.blockSize])
        guard let generation = BlockModel.generation(of: bytes, lba: command.cdb.lbaForSimulation) else { return }
        final[Part(generation: generation, lba: command.cdb.lbaForSimulation)] = path
    }
}

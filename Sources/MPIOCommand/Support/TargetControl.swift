import Foundation
import ISCSITarget
import MPIO

// The control socket of `mpio target`: one JSON object per line each way, as holders of LUNs have it.

struct TargetRequest: Codable, Equatable {
    enum Kind: String, Codable { case identify, list, add, remove, clear, release }

    var request: Kind
    /// With `add`.
    var faults: [FaultCommand]?
    /// With `remove`.
    var ids: [Int]?
}

struct TargetReply: Codable, Equatable {
    /// To `identify`.
    var target: TargetReport?
    /// All faults that are set now.
    var faults: [FaultStatus]?
    var error: ControlFailure?
}

/// Which target a process serves.
struct TargetReport: Codable, Equatable {
    var pid: Int32
    /// Its iSCSI nodes' names, the first one first.
    var names: [String]
}

/// Answers on the control socket's thread; faults are set on the target's.
final class TargetControl: ControlLines {
    static let suffix = ".target"
    private let report: TargetReport
    private let perform: @Sendable (FaultRequest) throws -> FaultReply

    init(names: [String], perform: @escaping @Sendable (FaultRequest) throws -> FaultReply) {
        report = TargetReport(pid: getpid(), names: names)
        self.perform = perform
    }

    func answer(to line: [UInt8]) -> [UInt8] {
        do {
            return ControlServer.encode(try reply(to: JSONDecoder().decode(TargetRequest.self, from: Data(line))))
        } catch let failure as ControlFailure {
            return ControlServer.encode(TargetReply(error: failure))
        } catch DecodingError.dataCorrupted(let context) {
            return ControlServer.encode(TargetReply(error: ControlFailure(.invalid, context.debugDescription)))
        } catch is DecodingError {
            return ControlServer.encode(TargetReply(error: ControlFailure(.malformed, "not a request that a target knows")))
        } catch {
            return ControlServer.encode(TargetReply(error: ControlFailure(.unavailable, "\(error)")))
        }
    }

    private func reply(to request: TargetRequest) throws -> TargetReply {
        let wanted: FaultRequest
        switch request.request {
        case .identify: return TargetReply(target: report)
        case .list: wanted = .list
        case .add: wanted = .set(request.faults ?? [])
        case .remove: wanted = .clear(request.ids ?? [])
        case .clear: wanted = .clearAll
        case .release: wanted = .releaseHeld
        }
        switch try perform(wanted) {
        case .faults(let faults): return TargetReply(faults: faults)
        case .refused(let words): throw ControlFailure(.invalid, words)
        }
    }
}

/// The targets that run under this user, asked over their control sockets.
struct RunningTargets {
    var directories = RuntimeDirectory.searchPaths()

    /// The one that is named (by an iSCSI name or a process id), or the only one.
    func choose(_ wanted: String?) throws -> ControlClient {
        var found: [(client: ControlClient, report: TargetReport)] = []
        for client in ControlClient.discover(suffix: TargetControl.suffix, directories: directories) {
            // One that does not answer must not hide the others.
            guard let reply: TargetReply = try? client.exchange(TargetRequest(request: .identify)), let report = reply.target
            else { continue }
            found.append((client, report))
        }
        if let wanted { found.removeAll { !$0.report.names.contains(wanted) && String($0.report.pid) != wanted } }
        if found.count == 1 { return found[0].client }
        guard !found.isEmpty else {
            throw CommandFailure(
                wanted.map { "no running mpio target is '\($0)'" } ?? "no mpio target is running; 'mpio target --listen …' is one")
        }
        let list = found.map { "  --target \($0.report.pid)   \($0.report.names.joined(separator: ", "))" }
        throw CommandFailure(
            "\(found.count) targets are running; say which:\n" + list.joined(separator: "\n"), status: ExitStatus.usage)
    }

    func ask(_ request: TargetRequest, of wanted: String?) throws -> [FaultStatus] {
        let reply: TargetReply = try choose(wanted).exchange(request)
        if let error = reply.error {
            throw CommandFailure(error.message, status: error.code == .invalid ? ExitStatus.usage : ExitStatus.failed)
        }
        guard let faults = reply.faults else {
            throw CommandFailure("the target gave an answer that this version does not understand")
        }
        return faults
    }
}

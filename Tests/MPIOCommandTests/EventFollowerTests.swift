import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

/// A holder that has events, and can be stuck.
private final class StuckHolder: ControlHandler, @unchecked Sendable {
    private let condition = NSCondition()
    private var isStuck = false
    private var records: [EventRecord] = []

    func happen(_ count: Int) {
        condition.withLock {
            for _ in 0..<count {
                let serial = UInt64(records.count + 1)
                records.append(EventRecord(serial: serial, at: "2026-11-21T10:00:00.000Z", lun: "a", kind: "path-lost", message: "\(serial)"))
            }
        }
    }

    func stick(_ stuck: Bool) {
        condition.withLock {
            isStuck = stuck
            condition.broadcast()
        }
    }

    func handle(_ request: ControlRequest) -> ControlResponse {
        condition.withLock {
            while isStuck { condition.wait() }
            switch request {
            case .events(let after): return .events(records.filter { $0.serial > after ?? 0 }, next: UInt64(records.count))
            case .identify: return .holder(HolderReport(pid: 7, command: "test", luns: ["a"], policyFile: "/etc/mpio/a.yaml"))
            default: return .paths(PathsReport(luns: [LUNSnapshot(name: "a", policy: "round-robin", state: .optimal)]))
            }
        }
    }
}

@Suite struct EventFollowerTests {
    private let folder = Folder()
    private let holder = StuckHolder()

    private func server(_ holder: StuckHolder) throws -> ControlServer { try ControlServer(handler: holder, directory: folder.path) }

    private var holders: Holders { Holders(directories: [folder.path], timeout: .milliseconds(300)) }

    /// Until so many events came; each turn's may be none.
    private func follow(_ follower: inout EventFollower, until count: Int) async throws -> [String] {
        var seen: [String] = []
        let deadline = ContinuousClock.now + .seconds(60)
        while seen.count < count, ContinuousClock.now < deadline {
            seen += follower.turn().records.map(\.message)
            try await Task.sleep(for: .milliseconds(5))
        }
        return seen
    }

    @Test func aHolderThatWasSilentForAWhileTellsNothingTwice() async throws {
        let server = try server(holder)
        var follower = EventFollower(holders, silencePause: .zero)
        holder.happen(3)
        let first = try await follow(&follower, until: 3)
        #expect(first == ["1", "2", "3"])

        holder.stick(true)
        holder.happen(1)
        let silent = follower.turn()
        #expect(silent.records.isEmpty && !silent.isAnswered)
        #expect(silent.silent.map(\.description) == ["\(server.path): the process that holds the LUN did not answer in time"])
        // Said once.
        let still = follower.turn()
        #expect(still.silent.isEmpty && still.records.isEmpty)

        holder.stick(false)
        let missed = try await follow(&follower, until: 1)
        #expect(missed == ["4"])
        holder.happen(2)
        let later = try await follow(&follower, until: 2)
        #expect(later == ["5", "6"])
        let nothing = follower.turn()
        #expect(nothing.records.isEmpty)
        server.stop()
    }

    @Test func anotherProcessByTheSameNameIsHeardFromItsBeginning() async throws {
        let first = try server(holder)
        var follower = EventFollower(holders)
        holder.happen(5)
        let old = try await follow(&follower, until: 5)
        #expect(old.count == 5)
        let path = first.path
        first.stop()
        let other = StuckHolder()
        other.happen(2)
        let second = try server(other)
        #expect(second.path == path)
        let new = try await follow(&follower, until: 2)
        #expect(new == ["1", "2"])
        second.stop()
        let nobody = follower.turn()
        #expect(nobody.records.isEmpty && !nobody.isAnswered)
    }

    @Test func oneThatIsStuckDoesNotHideTheOthers() async throws {
        let other = StuckHolder()
        let servers = [try server(holder), try server(other)]
        holder.stick(true)
        other.happen(1)
        var follower = EventFollower(holders)
        let turn = follower.turn()
        #expect(turn.records.map(\.message) == ["1"] && turn.isAnswered && turn.silent.map(\.path) == [servers[0].path])
        holder.stick(false)
        for server in servers { server.stop() }
    }

    /// Every command that asks a holder names one that gives no answer.
    @Test func whoDoesNotAnswerIsNamed() throws {
        let server = try ControlServer(handler: holder, directory: folder.path + "/mpio")
        holder.stick(true)
        for arguments in [
            ["events"], ["policy", "a"], ["path", "fail", "a", "p"], ["explain", "a"], ["metrics"], ["reload", "--yes"], ["plot", "a", "--out", "a.svg"],
        ] {
            let run = try Mpio(arguments, folder: folder.path)
            #expect(run.status == 1 && run.errors.contains("no process that answers holds") && run.errors.contains("\(server.path): the process"), "\(arguments): \(run)")
        }
        holder.stick(false)
        server.stop()
    }

    /// A process is meant by the policy file that it was started with.
    @Test func aPolicyFileChoosesItsProcess() throws {
        let named = HeldBy(file: folder.path + "/named.yaml", policy: "least-blocks")
        let other = HeldBy(file: folder.path + "/other.yaml", policy: "round-robin")
        for name in ["named.yaml", "other.yaml", "third.yaml"] { try folder.write(goodPolicy, to: name) }
        let servers = try [other, named].map { try ControlServer(handler: $0, directory: folder.path + "/mpio") }
        #expect(try Mpio("policy", "a", folder: folder.path).output == "a  round-robin\n")
        #expect(try Mpio("policy", "a", "--config", "named.yaml", folder: folder.path).output == "a  least-blocks\n")
        #expect(try Mpio("policy", "a", "--config=./other.yaml", folder: folder.path).output == "a  round-robin\n")
        symlink("named.yaml", folder.path + "/link.yaml")
        #expect(try Mpio("policy", "a", "--config", "link.yaml", folder: folder.path).output == "a  least-blocks\n")
        let nobody = try Mpio("policy", "a", "--config", "third.yaml", folder: folder.path)
        #expect(nobody.status == 1 && nobody.errors.hasPrefix("mpio: no running process holds 'a' by the policy file third.yaml;"), "\(nobody)")
        #expect(try Mpio("metrics", "--config", "third.yaml", folder: folder.path).status == 1)
        let missing = try Mpio("explain", "a", "--config", "none.yaml", folder: folder.path)
        #expect(missing.status == 65 && missing.errors.contains("none.yaml"), "\(missing)")
        for server in servers { server.stop() }
    }
}

/// A holder with a policy file of its own.
private final class HeldBy: ControlHandler {
    let file: String
    let policy: String

    init(file: String, policy: String) {
        self.file = file
        self.policy = policy
    }

    func handle(_ request: ControlRequest) -> ControlResponse {
        switch request {
        case .identify: .holder(HolderReport(pid: 7, command: "test", luns: ["a"], policyFile: file))
        case .policy: .policy(PolicyReport(lun: "a", policy: policy))
        default: .paths(PathsReport(luns: [LUNSnapshot(name: "a", policy: policy, state: .optimal)]))
        }
    }
}

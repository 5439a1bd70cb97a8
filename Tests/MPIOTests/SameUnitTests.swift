import Foundation
import ISCSITarget
import Multipath
import SCSI
import TestSupport
import Testing

@testable import MPIO

/// Two LUNs of a policy file that lead to one unit, spelled so that only the unit itself can tell.
@Suite struct SameUnitTests {
    private let target: TargetWithUnits
    /// Of unit 0.
    private let identity: String

    init() async throws {
        target = try TargetWithUnits(units: 2)
        let manager = try await target.manager(reactors: 1, units: [0])
        identity = try #require(try await manager.open("a").status.identity)
        try await manager.shutdown()
    }

    /// LUN `a` by place, `twin` by identity, and `b`, which is another unit.
    private func yaml(reactors: Int, lanes: Int? = nil, units: [Int] = [0, 1]) -> String {
        var text = target.yaml(units: units, head: "reactors: \(reactors)", lanes: { _ in lanes })
        text += "  - name: twin\n    identity: \(identity)\n"
        if let lanes { text += "    reactors: \(lanes)\n" }
        return text
    }

    private func manager(reactors: Int, lanes: Int? = nil) async throws -> PathManager {
        try await PathManager(configuration: Configuration(yaml: yaml(reactors: reactors, lanes: lanes)), options: target.options)
    }

    private func expectRefused(_ lun: String, besides other: String, of manager: PathManager) async {
        let error = await #expect(throws: PathManagerError.self) { try await manager.open(lun) }
        guard case .sameUnit(lun, other, let found)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect("\(found)" == identity)
        let words = "\(error!)"
        for part in [lun, other, identity] { #expect(words.contains(part), "\(words)") }
    }

    /// On one reactor, on two (the LUNs then live on different threads), and with a lane on each.
    @Test(arguments: [(1, nil), (2, nil), (2, 2)] as [(Int, Int?)])
    func theSecondIsRefusedByName(reactors: Int, lanes: Int?) async throws {
        for (first, second) in [("a", "twin"), ("twin", "a")] {
            let manager = try await manager(reactors: reactors, lanes: lanes)
            let disk = try await manager.open(first)
            #expect(disk.laneCount == lanes ?? 1)
            await expectRefused(second, besides: first, of: manager)
            // Neither what is open nor another unit is touched by that; and asking again gives the same.
            let buffer = IOBuffer(byteCount: 4096)
            try await disk.write(buffer, at: 0)
            #expect(try await manager.open(first) === disk)
            try await manager.open("b").write(buffer, at: 0)
            await expectRefused(second, besides: first, of: manager)
            #expect(Set(await manager.report().luns.map(\.name)) == [first, "b"])
            try await manager.shutdown()
        }
        try target.stop()
    }

    @Test(arguments: [(1, nil), (2, nil), (2, 2)] as [(Int, Int?)])
    func ofTwoThatOpenAtOnceOneDoes(reactors: Int, lanes: Int?) async throws {
        for _ in 0..<10 {
            let manager = try await manager(reactors: reactors, lanes: lanes)
            let results = await withTaskGroup(of: Result<MultipathDisk, any Error>.self) { group in
                for name in ["a", "twin", "a", "twin"] {
                    group.addTask {
                        do { return .success(try await manager.open(name)) } catch { return .failure(error) }
                    }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
            let opened = results.compactMap { try? $0.get() }
            #expect(Set(opened.map(\.name)).count == 1 && opened.count == 2)
            for case .failure(let error) in results {
                if case PathManagerError.sameUnit = error { continue }
                Issue.record("\(error)")
            }
            try await manager.shutdown()
        }
        try target.stop()
    }

    /// The name goes with the LUN: what is given up no longer keeps another from the unit.
    @Test func theOtherOpensOnceTheFirstIsGivenUp() async throws {
        let manager = try await manager(reactors: 2)
        let disk = try await manager.hold("a")
        await expectRefused("twin", besides: "a", of: manager)
        let file = try target.directory.file("without-a.yaml", contents: Array(yaml(reactors: 2, units: [1]).utf8))
        _ = try await manager.reload(file)
        #expect(try await eventually { (try? await manager.open("twin")) != nil })
        await #expect(throws: DiskError.closed) { try await disk.write(IOBuffer(byteCount: 4096), at: 0) }
        try await manager.shutdown()
        try target.stop()
    }

    /// A write of `a` that the target took and never answered may be carried out when `a` is long closed: not over one of `twin`.
    @Test func aNameThatLeftAWriteBehindKeepsTheOtherOutForAWhile() async throws {
        let timers = "silence-timeout: 500ms, quiesce-time: 6s"
        func policy(_ text: String) -> [UInt8] {
            Array(text.replacingOccurrences(of: "timers: {", with: "timers: {\(timers), ")
                .replacingOccurrences(of: "defaults:\n", with: "defaults:\n  policy: fail-over-only\n").utf8)
        }
        let file = try target.directory.file("mpio.yaml", contents: policy(yaml(reactors: 2)))
        let manager = try await PathManager(configuration: Configuration(contentsOf: file), options: target.options)
        let disk = try await manager.hold("a")
        try target.with { $0.filter = HeldWrites() }
        let older = Task { try await disk.write(IOBuffer(byteCount: 4096), at: 0) }
        #expect(try await eventually { try target.with { $0.heldTokens.count } == 1 })
        try target.with { _ = try $0.setFault(FaultCommand(parsing: "silence:portal=0")) }
        // Done through the other path.
        try await older.value
        _ = try target.directory.file("mpio.yaml", contents: policy(yaml(reactors: 2, units: [1])))
        _ = try await manager.reload()
        let closed = ContinuousClock.now
        let error = await #expect(throws: PathManagerError.self) { try await manager.open("twin") }
        if case .writesFeared("twin", "a", let found)? = error { #expect("\(found)" == identity) } else { Issue.record("\(String(describing: error))") }
        #expect(try await eventually { (try? await manager.open("twin")) != nil })
        #expect(ContinuousClock.now - closed > .seconds(3), "quiesce-time is not over")
        try target.with {
            $0.filter = nil
            $0.clearFaults()
        }
        try await manager.shutdown()
        try target.stop()
    }

    /// Takes writes at the first portal and answers none, whatever becomes of their session.
    private final class HeldWrites: CommandFilter, Sendable {
        var holdsOutliveSessions: Bool { true }
        func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
            portal == 0 && [0x2A, 0x8A].contains(command.cdb.bytes[0]) ? .hold : .execute
        }
    }

    /// What the user sees of it where nobody holds them, in the table and in JSON.
    @Test func theReasonIsShownInPlaceOfPaths() throws {
        var lun = LUNSnapshot(name: "twin", policy: "round-robin", state: .failed)
        let found = try #require(LogicalUnitIdentity(identity))
        lun.error = "\(PathManagerError.sameUnit(lun: "twin", openAs: "a", identity: found))"
        let text = PathsRenderer(now: Date()).render(lun)
        #expect(text.contains("twin and a are one unit, \(identity)") && !text.contains("no target that answers"), "\(text)")
        #expect(PathsRenderer(now: Date()).renderBrief(PathsReport(luns: [lun])).contains("twin and a are one unit"))
        let decoded = try JSONDecoder().decode(LUNSnapshot.self, from: JSONEncoder().encode(lun))
        #expect(decoded.error == lun.error)
        try target.stop()
    }
}

import Foundation
import ISCSITarget
import MPIO
import Multipath
import Testing
import TestSupport

/// What each connection of a session carries under each policy, counted at the target.
@Suite(.serialized)
struct ConnectionPolicyTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("mcs-policy") }

    enum Target: CaseIterable { case tgtd, embedded }

    /// A target with four portals, and what it counted of each connection.
    private struct Field {
        let setup: DiskSetup
        let count: ([ConnectionSnapshot]) throws -> [UInt64]
        let stop: () throws -> Void
    }

    private func field(_ target: Target, policy: String = "round-robin", keys: [String] = []) throws -> Field {
        switch target {
        case .tgtd:
            let server = try TgtServer.withConnections(in: directory)
            return Field(
                setup: DiskSetup(session: server, policy: policy, keys: keys),
                count: { connections in
                    let commands = try server.commandsByConnection()
                    return connections.map { commands[$0.cid] ?? 0 }
                },
                stop: { server.kill9() })
        case .embedded:
            let array = try EmbeddedArray.withConnections()
            return Field(
                setup: DiskSetup(session: array, policy: policy, keys: keys), count: { _ in try array.commandCounts() },
                stop: { try array.stop() })
        }
    }

    /// Runs verified requests; how many each connection carried, as mpio and as the target counted them.
    private func spread(
        _ count: Int, depth: Int = 16, _ target: Target, policy: String, keys: [String] = []
    ) async throws -> [UInt64] {
        let field = try field(target, policy: policy, keys: keys)
        let carried = try await field.setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            func counts() async throws -> (own: [UInt64], target: [UInt64]) {
                let connections = try await disk.paths[0].connections
                return (connections.map(\.requests), try field.count(connections))
            }
            let load = VerifiedLoad(disk, .init(depth: depth, blockCount: 2048))
            let before = try await counts()
            try await load.run(requestCount: count)
            let after = try await counts()
            expectClean(load)
            let carried = differences(after.own, before.own)
            #expect(differences(after.target, before.target) == carried)
            #expect(carried.reduce(0, +) == UInt64(count))
            return carried
        }
        try field.stop()
        return carried
    }

    @Test(arguments: Target.allCases) func roundRobinGivesEveryConnectionTheSame(_ target: Target) async throws {
        #expect(try await spread(4000, target, policy: "round-robin") == [1000, 1000, 1000, 1000])
    }

    @Test(arguments: Target.allCases) func aSubsetRotatesAndStandbysWait(_ target: Target) async throws {
        let keys = ["role: primary", "role: standby", "role: primary", "role: standby"]
        #expect(try await spread(2000, target, policy: "round-robin-with-subset", keys: keys) == [1000, 0, 1000, 0])
    }

    @Test(arguments: Target.allCases) func failOverOnlyUsesOneConnection(_ target: Target) async throws {
        #expect(try await spread(1000, target, policy: "fail-over-only") == [1000, 0, 0, 0])
    }

    @Test(arguments: Target.allCases) func theShortestQueueIsFilledFirst(_ target: Target) async throws {
        let carried = try await spread(4000, target, policy: "least-queue-depth")
        for count in carried { #expect(count > 600, "\(carried)") }
    }

    @Test(arguments: Target.allCases) func weightsShareInProportion(_ target: Target) async throws {
        let weights = [5, 3, 1, 1]
        let carried = try await spread(
            10_000, depth: 32, target, policy: "weighted-paths", keys: weights.map { "weight: \($0)" })
        for (count, weight) in zip(carried, weights) {
            #expect(abs(Double(count) - 1000 * Double(weight)) <= 20 * Double(weight), "\(carried)")
        }
    }

    // MARK: Changed by hand, under load

    /// All five, one after the other, by `mpio policy --session` while the load runs.
    @Test(arguments: Target.allCases) func eachPolicyTakesHoldUnderLoadByTheCommand(_ target: Target) async throws {
        let keys = ["weight: 5", "weight: 3", "weight: 1, role: standby", "weight: 1"]
        let field = try field(target, keys: keys)
        try await field.setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let session = field.setup.paths[0].portal.description
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            load.start()
            try await load.proceed(400)
            /// Parts of ten that each connection should have; nil: any part, but some.
            let policies: [(name: String, tenths: [Double]?)] = [
                ("weighted-paths", [5, 3, 1, 1]), ("fail-over-only", [10, 0, 0, 0]),
                ("round-robin", [2.5, 2.5, 2.5, 2.5]), ("least-queue-depth", nil),
                ("round-robin-with-subset", [10.0 / 3, 10.0 / 3, 0, 10.0 / 3]), ("weighted-paths", [5, 3, 1, 1]),
            ]
            for (name, tenths) in policies {
                let said = try await mpio(in: directory, "policy", "disk", name, "--session", session).standardOutput
                #expect(said.hasPrefix("disk  \(session)  \(name)"), "\(said)")
                #expect(try await disk.paths[0].connectionPolicy == name)
                // What was chosen before the change is done by then.
                try await load.proceed(64)
                let before = try field.count(try await disk.paths[0].connections)
                try await load.proceed(20_000)
                let carried = differences(try field.count(try await disk.paths[0].connections), before).map(Double.init)
                let tenth = carried.reduce(0, +) / 10
                for (index, count) in carried.enumerated() {
                    guard let tenths else {
                        #expect(count > tenth, "\(name): \(carried)")
                        continue
                    }
                    #expect(abs(count - tenths[index] * tenth) <= max(0.02 * tenths[index] * tenth, 1), "\(name): \(carried)")
                }
            }
            let refused = try await mpio(in: directory, "policy", "disk", "least-blocks", "--session", session, status: 64)
            #expect(refused.standardError.contains("can't choose among the connections of a session"), "\(refused.standardError)")
            try await load.stop()
            expectClean(load)
            #expect(try await disk.redrivenCount == 0)
        }
        try field.stop()
    }

    @Test func theConnectionPolicyChangesUnderLoadByTheAPI() async throws {
        let field = try field(.embedded)
        try await field.setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            load.start()
            try await load.proceed(400)
            let path = field.setup.paths[0].portal.description
            #expect(try await disk.setConnectionPolicy(PolicySettings(.failOverOnly), ofPath: path))
            let before = try await disk.paths[0].connections.map(\.requests)
            try await load.proceed(400)
            let carried = differences(try await disk.paths[0].connections.map(\.requests), before)
            // What was chosen before the first count was taken is in it already.
            #expect(carried[0] >= 400 && carried[1...].allSatisfy { $0 == 0 }, "\(carried)")
            try await load.stop()
            expectClean(load)
        }
        try field.stop()
    }
}

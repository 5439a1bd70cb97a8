import Foundation
import MPIO
import Multipath
import SCSI
import Testing
import TestSupport

/// Access states of an array with two controllers, over real sockets.
@Suite(.serialized)
struct ALUAEndToEndTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("alua") }

    @Test func aStandbyControllerIsMadeActiveWhenTheActiveOneIsLost() async throws {
        let array = try EmbeddedArray(tags: [1, 2], explicit: true)
        try array.with { $0.node.setState(.standby, ofGroupTag: 2) }
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        #expect(await disk.manager.report().luns[0].dsm == "alua")
        try await disk.write(1)
        try array.setPortal(0, enabled: false)
        let start = ContinuousClock.now
        try await disk.write(2)
        let took = start.seconds
        #expect(took < 4, "\(took) s")
        #expect(try array.with { $0.node.portGroups.map(\.state) } == [.optimized, .optimized])
        #expect(disk.events.contains {
            if case .transitionRequested(PathIndex(1), let change) = $0 { change.identifier == 2 } else { false }
        })
        print("explicit fail-over: write took \(took) s")
        try await disk.close()
        try array.stop()
    }

    @Test func anArrayThatMovesByItselfIsWaitedForAndNoPathFails() async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        try array.with { $0.node.setState(.standby, ofGroupTag: 2) }
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        try await disk.write(1)
        try array.with {
            $0.node.setState(.transitioning, ofGroupTag: 1)
            $0.node.setState(.transitioning, ofGroupTag: 2)
        }
        async let written: Void = disk.write(2)
        try await Task.sleep(for: .seconds(1))
        try array.with {
            $0.node.setState(.standby, ofGroupTag: 1)
            $0.node.setState(.optimized, ofGroupTag: 2)
        }
        let start = ContinuousClock.now
        try await written
        let took = start.seconds
        #expect(took < 3, "\(took) s; asked every 2 s")
        #expect(try await disk.pattern() == 2)
        #expect(!disk.events.contains { if case .pathLost = $0 { true } else { false } }, "\(disk.events)")
        #expect(try array.with { $0.counters(portal: 1).writes } == 1)
        print("implicit transition: followed \(took) s after its end")
        try await disk.close()
        try array.stop()
    }

    @Test func aDiskThatIsStandbyOnAllPathsIsOpenedAndMadeActive() async throws {
        let array = try EmbeddedArray(tags: [1, 2], explicit: true)
        try array.with { target in for tag: UInt16 in [1, 2] { target.node.setState(.standby, ofGroupTag: tag) } }
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        #expect(disk.disk.capacityByteCount == 16 << 20)
        try await disk.write(1)
        #expect(try await disk.pattern() == 1)
        try await disk.close()
        try array.stop()
    }
}

import Multipath
import SCSI
import Testing

@testable import MPIO

@Suite struct ConfigurationWriterTests {
    private func storage(identity: String = "naa.6001405abcdef01234567890abcdef01") throws -> DiscoveredStorage {
        let portal = try PortalAddress(parsing: "10.0.1.10")
        let other = try PortalAddress(parsing: "[2001:db8::1]:3261")
        let name = "iqn.2026-11.org.example:array-1"
        let lun = DiscoveredStorage.LUN(
            identity: try #require(LogicalUnitIdentity(identity)), vendor: "LIO-ORG ", product: "disk0\u{1B}[2J", byteCount: 10 << 30,
            blockSize: 512, paths: [(portal, name, 3), (other, name, 3)])
        return DiscoveredStorage(
            initiatorName: "iqn.2026-11.org.example:host-1",
            targets: [.init(name: name, portals: [.init(address: portal, source: try SourceAddress(parsing: "10.0.1.5")), .init(address: other)])],
            luns: [lun, lun])
    }

    @Test func whatIsWrittenReadsBack() throws {
        var storage = try storage()
        storage.luns[1].identity = try #require(LogicalUnitIdentity("naa.6001405abcdef01234567890abcdef02"))
        let text = PolicyFileWriter().text(storage)
        let policy = try Configuration(yaml: text)
        #expect(policy.initiatorName == storage.initiatorName)
        #expect(policy.targets[0].portals.map(\.name) == ["10.0.1.10:3260", "[2001:db8::1]:3261"])
        #expect(policy.targets[0].portals[0].source?.description == "10.0.1.5")
        #expect(policy.luns.map(\.name) == ["array-1-3", "array-1-3-2"])
        #expect(policy.luns[0].identification == .identity(storage.luns[0].identity))
        #expect(policy.luns[0].settings == LUNSettings())
        // What is only remarked is right as well, once the marks are taken away.
        let paths = text.replacing("    # paths: every portal above that leads to it, equal and primary. To say more:\n", with: "").replacing("\n    # ", with: "\n    ")
        #expect(try Configuration(yaml: paths).luns[0].paths.count == 2)
    }

    @Test(arguments: ["serial.A%20B:C%3aD:%221%22", "t10.VENDOR%20%20x%22y", "name.iqn.2026-11.org.example:a", "local.3000000000000001:iqn.x"])
    func oddIdentitiesAreQuoted(_ identity: String) throws {
        var storage = try storage(identity: identity)
        storage.luns.removeLast()
        let policy = try Configuration(yaml: PolicyFileWriter().text(storage))
        #expect(policy.luns[0].identification == .identity(storage.luns[0].identity))
    }

    @Test func hostileTextFromATargetCanNotBreakTheFile() throws {
        var storage = try storage()
        storage.luns.removeLast()
        storage.luns[0].vendor = "x\n  - name: evil"
        storage.targets[0].chap = .init(user: "a\"}\nb", secretFile: "/nonexistent")
        storage.targets[0].unanswered = [("10.0.9.9\n  - name: evil", "gone\n  - name: evil")]
        let text = PolicyFileWriter().text(storage)
        #expect(ConfigurationErrorTests.errors(of: text).count == 1)
        #expect(!text.contains("\n  - name: evil"))
    }

    @Test func withoutLUNsTheFileSaysWhy() throws {
        var storage = try storage()
        storage.luns = []
        storage.initiatorName = nil
        let text = PolicyFileWriter().text(storage)
        let errors = ConfigurationErrorTests.errors(of: text)
        #expect(errors.count == 1 && errors[0].contains("no LUN"))
        #expect(!text.contains("initiator:"))
    }
}

import Foundation
import Testing

@testable import MPIO

@Suite struct SnapshotRendererTests {
    static let now = Timestamp.parse("2026-11-21T10:00:12.000Z")!

    static var sample: LUNSnapshot {
        var first = PathSnapshot(id: "10.0.1.10:3260", transport: .iscsi, portal: "10.0.1.10:3260", state: .activeOptimized)
        first.source = "10.0.1.5"
        first.tpg = 1
        first.weight = 3
        first.inFlight = 24
        first.requestsPerSecond = 41_200
        first.bytesPerSecond = 161_000_000
        first.latency = LatencySummary(p50: 180, p99: 410, max: 1200)
        var second = PathSnapshot(id: "10.0.2.10:3260", transport: .iscsi, portal: "10.0.2.10:3260", state: .failed)
        second.source = "10.0.2.5"
        second.tpg = 2
        second.weight = 1
        second.requestsPerSecond = 0
        second.bytesPerSecond = 0
        second.errors = 7
        second.lastError = LastError(at: "2026-11-21T10:00:00.000Z", reason: "connection reset")
        second.nextTrySeconds = 3
        var third = PathSnapshot(id: "/dev/sdc", transport: .device, portal: "/dev/sdc", state: .activeOptimized, role: "standby")
        third.requestsPerSecond = 0
        third.bytesPerSecond = 0
        return LUNSnapshot(
            name: "vm-store", identity: "naa.6001405abcdef01234567890abcdef01", vendor: "LIO-ORG ", product: "disk0           ",
            capacityBytes: 10 << 30, blockSize: 512, policy: "weighted-paths", state: .degraded, holder: .init(pid: 4711, command: "mpio bench"),
            paths: [first, second, third])
    }

    @Test func theTableLooksAsDocumented() {
        let text = PathsRenderer(now: Self.now).render(PathsReport(luns: [Self.sample]))
        #expect(
            text == """
                vm-store  naa.6001405abcdef01234567890abcdef01  LIO-ORG disk0  10.0 GiB, 512 B blocks
                  policy weighted-paths   dsm default   state degraded (1 of 3 paths failed)   fence clear   held by pid 4711 (mpio bench)
                  PATH              FROM      TPG  STATE             ROLE     WEIGHT  QUEUE    IOPS    MB/s    p50    p99  ERRORS  LAST
                  10.0.1.10:3260    10.0.1.5    1  active/optimized  primary       3     24   41.2k   161.0  180µs  410µs       0
                  10.0.2.10:3260    10.0.2.5    2  failed            primary       1      0       0     0.0      –      –       7  connection reset 12 s ago, next try in 3 s
                  /dev/sdc          –           –  active/optimized  standby       –      0       0     0.0      –      –       0

                """, "\(text)")
    }

    @Test(arguments: [60, 80, 100, 120, 200])
    func noLineIsWiderThanTheTerminal(_ width: Int) {
        let text = PathsRenderer(style: TextStyle(width: width), now: Self.now).render(Self.sample)
        let lines = text.split(separator: "\n")
        #expect(lines.allSatisfy { $0.count <= width }, "\(text)")
        for needed in ["10.0.2.10:3260", "failed", "connection reset 12 s ago", "QUEUE", "ERRORS"] { #expect(text.replacing(/\n +/, with: " ").contains(needed)) }
    }

    @Test func aNarrowTerminalGetsTheReasonBelowThePath() {
        let text = PathsRenderer(style: TextStyle(width: 80), now: Self.now).render(Self.sample)
        #expect(
            text == """
                vm-store  naa.6001405abcdef01234567890abcdef01  LIO-ORG disk0
                  10.0 GiB, 512 B blocks
                  policy weighted-paths   dsm default   state degraded (1 of 3 paths failed)
                  fence clear   held by pid 4711 (mpio bench)
                  PATH              STATE             QUEUE    IOPS    p50    p99  ERRORS
                  10.0.1.10:3260    active/optimized     24   41.2k  180µs  410µs       0
                  10.0.2.10:3260    failed                0       0      –      –       7
                      connection reset 12 s ago, next try in 3 s
                  /dev/sdc          active/optimized      0       0      –      –       0

                """, "\(text)")
    }

    @Test func colourMarksStatesOnlyAndChangesNoWidth() {
        let plain = PathsRenderer(style: TextStyle(width: 90), now: Self.now).render(Self.sample)
        let coloured = PathsRenderer(style: TextStyle(usesColour: true, width: 90), now: Self.now).render(Self.sample)
        #expect(coloured.contains("\u{1B}[31mfailed\u{1B}[0m") && coloured.contains("\u{1B}[32mactive/optimized\u{1B}[0m"))
        #expect(coloured.replacing(/\u{1B}\[[0-9]*m/, with: "") == plain)
    }

    @Test func aDeviceCanNotSteerTheTerminal() {
        var lun = Self.sample
        lun.vendor = "EVIL\u{1B}[2J"
        lun.paths[1].lastError?.detail = "\u{1B}]0;owned\u{7}\n"
        lun.holder?.command = "a\rb"
        let text = PathsRenderer(now: Self.now).render(lun)
        #expect(!text.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" })
        #expect(text.split(separator: "\n").count == 6)
    }

    @Test func connectionsOfASessionAreShownUnderTheirPath() {
        var lun = Self.sample
        lun.paths[0].connections = [
            ConnectionSnapshot(cid: 0, portal: "10.0.1.10:3260", source: "10.0.1.5", state: "logged in", inFlight: 20),
            ConnectionSnapshot(cid: 1, portal: "10.0.1.11:3260", state: "failed"),
        ]
        let text = PathsRenderer(now: Self.now).render(lun)
        #expect(text.contains("    cid 1 10.0.1.11:3260") && text.contains("logged in"))
        lun.paths[0].connections[1].number = 2
        #expect(PathsRenderer(now: Self.now).render(lun).contains("    2: cid 1 10.0.1.11:3260"))
        lun.paths[0].connections.removeLast()
        #expect(!PathsRenderer(now: Self.now).render(lun).contains("cid"))
    }

    @Test func aPathThatIsSickSaysSinceWhen() {
        var lun = Self.sample
        lun.paths[1].state = .stalled
        lun.paths[1].nextTrySeconds = nil
        lun.paths[1].lastError = LastError(
            at: Timestamp.format(Self.now.addingTimeInterval(-12)), reason: "silent", detail: "TCP answers, the target does not")
        let text = PathsRenderer(now: Self.now).render(lun)
        #expect(text.contains("state degraded (1 of 3 paths stalled)"), "\(text)")
        #expect(text.contains("silent for 12 s: TCP answers, the target does not\n"), "\(text)")
        lun.paths[0].state = .failed
        #expect(PathsRenderer(now: Self.now).render(lun).contains("(1 stalled, 1 failed of 3 paths)"))
    }

    /// A LUN is optimal with active and standby paths only; every other state is a reason for its being worse.
    @Test(arguments: PathState.allCases)
    func everyStateThatMakesALUNWorseIsNamedAndNotCounted(_ state: PathState) {
        var lun = Self.sample
        for index in lun.paths.indices {
            lun.paths[index].state = state
            lun.paths[index].lastError = nil
            lun.paths[index].nextTrySeconds = nil
        }
        let isWell = [.activeOptimized, .activeNonOptimized, .standby].contains(state)
        lun.state = isWell ? .optimal : .failed
        let (table, brief) = (PathsRenderer(now: Self.now).render(lun), PathsRenderer(now: Self.now).renderBrief(PathsReport(luns: [lun])))
        #expect(table.contains("(3 of 3 paths \(state.rawValue))") == !isWell, "\(table)")
        let last = brief.split(separator: "\n").last.map(String.init) ?? ""
        #expect(last.contains(isWell ? " 3/3 " : " 0/3 "), "\(brief)")
        #expect(last.contains("10.0.1.10:3260 \(state.rawValue)") == !isWell, "\(brief)")
        if state == .connecting { #expect(last.hasSuffix("10.0.1.10:3260 connecting: no answer yet"), "\(brief)") }
        #expect(!last.hasSuffix(":"), "\(brief)")
    }

    @Test func onePathThatIsDrainedIsTheReason() {
        var lun = Self.sample
        lun.paths.removeLast()
        lun.paths[1].state = .drained
        lun.paths[1].lastError = nil
        lun.paths[1].nextTrySeconds = nil
        #expect(PathsRenderer(now: Self.now).render(lun).contains("state degraded (1 of 2 paths drained)"))
        let brief = PathsRenderer(now: Self.now).renderBrief(PathsReport(luns: [lun]))
        #expect(brief.contains("degraded    1/2 ") && brief.hasSuffix("10.0.2.10:3260 drained\n"), "\(brief)")
    }

    /// In two parts, what is held and what was looked at, it reads as in one.
    @Test func theTwoPartsOfATableMakeOne() {
        let renderer = PathsRenderer(now: Self.now)
        var other = Self.sample
        other.name = "other"
        other.holder = nil
        let (held, rest) = (PathsReport(luns: [Self.sample]), PathsReport(luns: [other]))
        let parts = renderer.renderHeld(held, awaited: 1, isBrief: false) + renderer.renderLookedAt(rest, isBrief: false)
        #expect(parts == renderer.render(PathsReport(luns: [Self.sample, other])))
        let many = renderer.renderHeld(held, awaited: 20, isBrief: false)
        #expect(many.hasPrefix("1 LUN, 3 paths: 1 degraded; 20 more that nobody holds are looked at\n\nvm-store"), "\(many)")
        let brief = renderer.renderHeld(held, awaited: 1, isBrief: true) + renderer.renderLookedAt(rest, isBrief: true)
        let lines = brief.split(separator: "\n").map(String.init)
        #expect(lines.first == "1 LUN, 3 paths: 1 degraded; 1 more that nobody holds is looked at" && lines.count == 5, "\(brief)")
        #expect(lines.last?.hasPrefix("other     degraded    2/3") == true, "\(brief)")
    }

    @Test func whatWasJustSeenIsNoTimeAgo() {
        var lun = Self.sample
        lun.paths[1].state = .connecting
        lun.paths[1].nextTrySeconds = nil
        lun.paths[1].lastError = LastError(at: Timestamp.format(Self.now), reason: "no answer within 1 s")
        #expect(PathsRenderer(now: Self.now).render(lun).contains("no answer within 1 s\n"))
    }

    @Test func nothingToShowIsSaid() {
        #expect(PathsRenderer(now: Self.now).render(PathsReport()) == "")
        let lun = LUNSnapshot(name: "x", policy: "round-robin", state: .failed)
        #expect(PathsRenderer(now: Self.now).render(lun).contains("fence clear\n  no paths: no target that answers has this LUN"))
    }

    @Test func theJSONHasTheDocumentedNames() throws {
        var lun = Self.sample
        lun.paths[1].isid = "800000000001"
        lun.paths[1].lun = 3
        lun.paths[1].target = "iqn.2026-11.org.example:a"
        let data = try JSONEncoder().encode(PathsReport(luns: [lun]))
        let json = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
        #expect(json["version"] as? Int == 1)
        let encoded = try #require((json["luns"] as? [[String: Any]])?.first)
        let names = ["name", "identity", "vendor", "product", "revision", "serial", "capacity_bytes", "block_size", "policy", "dsm", "state", "fence", "queued", "failovers", "holder", "paths"]
        #expect(Set(names).isSubset(of: Set(encoded.keys)))
        #expect(encoded["redriven"] as? Int == 0)
        // The last path knows the least: its names are there all the same.
        let path = try #require((encoded["paths"] as? [[String: Any]])?[2])
        let pathNames = ["id", "transport", "portal", "source", "target", "lun", "isid", "tpg", "state", "role", "weight", "in_flight", "in_flight_blocks", "requests", "bytes_read", "bytes_written", "errors", "latency_us", "last_error", "connections"]
        #expect(Set(pathNames).isSubset(of: Set(path.keys)))
        #expect(encoded["state"] as? String == "degraded" && path["last_error"] is NSNull)
        #expect((path["latency_us"] as? [String: Any])?.count == 3)
        #expect(try JSONDecoder().decode(PathsReport.self, from: data).luns == [lun])
    }

    @Test func numbersReadWell() {
        #expect(HumanText.size(0) == "0 B" && HumanText.size(1023) == "1023 B" && HumanText.size(1024) == "1.0 KiB")
        #expect(HumanText.size((1 << 30) - 1) == "1.0 GiB" && HumanText.size(.max) == "16.0 EiB")
        #expect(HumanText.rate(0) == "0" && HumanText.rate(7) == "7" && HumanText.rate(999) == "999" && HumanText.rate(999.7) == "1.0k")
        #expect(HumanText.rate(1_234_567) == "1.23M" && HumanText.rate(.nan) == "0")
        #expect(HumanText.latency(microseconds: 0.5) == "0.5µs" && HumanText.latency(microseconds: 1240) == "1.24ms")
        #expect(HumanText.latency(microseconds: 12_300) == "12.3ms" && HumanText.latency(microseconds: 2_500_000) == "2.50s")
        #expect(HumanText.span(seconds: 12) == "12 s" && HumanText.span(seconds: 300) == "5 min" && HumanText.span(seconds: 9000) == "2 h")
    }
}

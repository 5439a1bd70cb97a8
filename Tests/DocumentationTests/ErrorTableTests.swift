import Foundation
import SCSI
import Testing

@testable import Multipath

/// docs/failover.md shows the default module's error table; this makes the text from the table and compares.
/// With `MPIO_UPDATE_DOCS=1` in the environment it writes it anew instead.
@Suite struct ErrorTableTests {
    @Test func theDocumentedTableIsTheTable() throws {
        let document = try Document.read("docs/failover.md")
        let shown = try #require(document.section("error table"))
        let actual = Self.render(ErrorTable.standard)
        if ProcessInfo.processInfo.environment["MPIO_UPDATE_DOCS"] != nil {
            let edge = "<!-- error table -->\n"
            let text = document.text.replacing(edge + shown, with: edge + actual)
            try text.write(toFile: Document.root + "/" + document.file, atomically: true, encoding: .utf8)
        } else {
            #expect(shown == actual, "run: MPIO_UPDATE_DOCS=1 make test FILTER=DocumentationTests")
        }
    }

    static func render(_ table: ErrorTable) -> String {
        var text = "| outcome | what is done | why |\n|---|---|---|\n"
        for row in table.rows {
            text += "| \(outcome(row)) | \(words(row.disposition)) | \(row.why.replacing("|", with: "\\|")) |\n"
        }
        return text
    }

    private static func outcome(_ row: ErrorRow) -> String {
        guard case .sense(let key, let code, let qualifier) = row.pattern else { return row.name }
        func hex(_ byte: UInt8?) -> String {
            guard let byte else { return "xx" }
            let text = String(byte, radix: 16, uppercase: true)
            return text.count == 1 ? "0" + text : text
        }
        let codes = code == nil ? "" : " \(hex(code))/\(hex(qualifier))"
        return row.name == key.description.lowercased() ? "\(key), any other" : "\(key)\(codes) \(row.name)"
    }

    private static func words(_ disposition: ErrorDisposition) -> String {
        var text: String
        switch disposition.action {
        case .complete: text = "done"
        case .retrySamePath: text = "again on the same path"
        case .retryOtherPath: text = "again on another path"
        case .failPath: text = "the path fails; its requests go elsewhere"
        case .failLUN: text = "the LUN fails"
        case .surface: text = "the caller is told"
        }
        switch disposition.delay {
        case .none: break
        case .retryInterval: text += ", after `retry-interval`"
        case .backOff(let milliseconds): text += ", after \(milliseconds) ms, doubling to 1 s"
        }
        if disposition.usesRetry { text += "; counts" }
        let effects: [(ErrorEffects, String)] = [
            (.refreshAccessStates, "RTPG on every path"), (.reprobe, "the path is verified in full"),
            (.shrinkQueue, "the path's queue is halved"), (.transitioning, "the path is in transition"),
            (.standby, "the path is standby"), (.unavailable, "the path is unavailable"), (.verify, "the path is asked"),
        ]
        for (effect, words) in effects where disposition.effects.contains(effect) { text += "; \(words)" }
        if let notice = disposition.notice { text += "; event “\(notice.rawValue)”" }
        return text
    }
}

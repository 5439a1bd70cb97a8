import AsyncIO
import Foundation
import MPIO

/// Answers `GET /metrics` over HTTP/1.1, one request to a connection, on a thread of its own (``StreamServer``).
///
/// What a client can take is bounded: ``maximumClientCount`` connections, 4 KiB of a request, and ``patience`` from the
/// first byte to the last. Whoever is slower, or sends something else, is dropped.
final class MetricsServer: Sendable {
    static let maximumClientCount = 16
    static let maximumRequestByteCount = 4096

    /// Where it listens.
    let address: MetricsAddress
    private let server: StreamServer

    /// - Parameter text: called on the server's thread for each request; nil where there is nothing to say.
    init(_ address: MetricsAddress, patience: Duration = .seconds(5), text: @escaping @Sendable () -> String?) throws {
        let (listener, bound) = try address.listen()
        self.address = bound
        do throws(IOError) {
            server = try StreamServer(
                listener: listener, name: "mpio-metrics",
                limits: .init(clientCount: Self.maximumClientCount, patience: .whole(patience), whenFull: .newcomersWait)
            ) { MetricsConversation(text: text) }
        } catch {
            close(listener)
            throw CommandFailure("--metrics: \(error.operation): \(String(cString: strerror(error.code)))")
        }
    }

    func stop() {
        if case .unix(let path) = address { unlink(path) }
        server.stop()
    }

    /// The whole answer to a request's head.
    static func response(to head: String, text: () -> String?) -> String {
        let words = head.prefix { $0 != "\r\n" && $0 != "\n" }.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, words[2].hasPrefix("HTTP/1.") else { return plain("400 Bad Request", "not an HTTP request\n") }
        guard words[0] == "GET" || words[0] == "HEAD" else { return plain("405 Method Not Allowed", "only GET\n", more: "Allow: GET, HEAD\r\n") }
        let path = words[1].prefix { $0 != "?" }
        guard path == "/metrics" else { return plain("404 Not Found", "there is /metrics and nothing else\n") }
        guard let body = text() else { return plain("503 Service Unavailable", "the process is ending\n") }
        let head = answerHead("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", body.utf8.count)
        return words[0] == "HEAD" ? head : head + body
    }

    fileprivate static func plain(_ status: String, _ body: String, more: String = "") -> String {
        answerHead(status, "text/plain; charset=utf-8", body.utf8.count, more: more) + body
    }

    private static func answerHead(_ status: String, _ type: String, _ count: Int, more: String = "") -> String {
        "HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(count)\r\n\(more)Connection: close\r\n\r\n"
    }
}

/// The head of a request, its answer, and the end.
private struct MetricsConversation: Conversation {
    let text: @Sendable () -> String?

    func next(_ input: inout [UInt8], from descriptor: Int32) -> ConversationStep {
        let head = String(decoding: input, as: UTF8.self)
        if head.contains("\r\n\r\n") || head.contains("\n\n") {
            return .lastAnswerThenPeerEnds(Array(MetricsServer.response(to: head, text: text).utf8))
        }
        guard input.count > MetricsServer.maximumRequestByteCount else { return .listen }
        return .lastAnswerThenPeerEnds(Array(MetricsServer.plain("431 Request Header Fields Too Large", "too long\n").utf8))
    }
}

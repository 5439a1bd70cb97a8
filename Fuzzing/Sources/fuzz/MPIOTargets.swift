import Foundation
import MPIO

/// A policy file. Relative secret files are looked for where there are none.
@Sendable
func fuzzConfiguration(_ input: UnsafeRawBufferPointer) {
    do throws(InvalidConfiguration) {
        let configuration = try Configuration(yaml: String(decoding: input, as: UTF8.self), folder: "/nonexistent")
        _ = "\(configuration)"
    } catch {
        require(!error.errors.isEmpty, "an invalid policy file is told why")
        for mistake in error.errors { require(!mistake.message.isEmpty && mistake.line >= 0, "each mistake has words and a line") }
    }
}

@Sendable
func configurationSeeds() -> [[UInt8]] {
    let full = """
        initiator: {name: iqn.2026-11.org.example:host-1}
        defaults:
          policy: round-robin
          timers: {pdo-remove-period: 20s, silence-timeout: 2s, retry-count: 3}
        targets:
          - name: iqn.2026-11.org.example:array-1
            portals:
              - {address: "10.0.1.10:3260", from: 10.0.1.5}
              - {address: "[fe80::1]:3260"}
            digests: {header: crc32c, data: none}
            connections: 2
            connection-policy: round-robin
        luns:
          - name: vm-store
            identity: naa.6001405abcdef01234567890abcdef01
            policy: weighted-paths
            paths:
              - {portal: "10.0.1.10:3260", weight: 3}
              - {device: /dev/sdc, role: standby}
          - {name: b, identity: {target: iqn.2026-11.org.example:array-1, lun: 1}}
        """
    let odd = """
        a: &x [1, 2]
        luns: *x
        defaults: {policy: {name: least-blocks, sequential-affinity: true}, timers: {pdo-remove-period: never}}
        targets: [{name: iqn.2026-11.org.example:a, chap: {user: u, secret-file: s.secret}, portals: [{address: "h:1"}]}]
        """
    return [Array(full.utf8), Array(odd.utf8), Array("luns: [\n".utf8), Array("? {a: 1}\n: !!int x\n".utf8)]
}

/// A line of the control socket, either way.
@Sendable
func fuzzControl(_ input: UnsafeRawBufferPointer) {
    let data = Data(input)
    if let request = try? JSONDecoder().decode(ControlRequest.self, from: data) {
        guard let again = try? JSONEncoder().encode(request) else { broken("a request can be written") }
        require((try? JSONDecoder().decode(ControlRequest.self, from: again)) == request, "requests round trip")
    }
    if let response = try? JSONDecoder().decode(ControlResponse.self, from: data) {
        _ = try? JSONEncoder().encode(response)
        if case .paths(let report) = response { _ = PathsRenderer(now: Date(timeIntervalSince1970: 0)).render(report) }
    }
}

@Sendable
func controlSeeds() -> [[UInt8]] {
    let requests: [ControlRequest] = [
        .identify, .paths(luns: ["vm-store"]), .policy(lun: "a"), .setPolicy(lun: "a", policy: "round-robin"),
        .path(.drain, lun: "a", path: "10.0.1.10:3260"), .explain(lun: "a", last: 3), .events(after: 7), .metrics,
    ]
    let responses: [ControlResponse] = [
        .holder(HolderReport(pid: 1, command: "mpio", luns: ["a"])), .policy(PolicyReport(lun: "a", policy: "round-robin")),
        .done("done"), .failed(ControlFailure(.invalid, "no")), .metrics("# EOF"), .events([], next: 1), .paths(PathsReport(luns: [])),
    ]
    return requests.compactMap { try? Array(JSONEncoder().encode($0)) } + responses.compactMap { try? Array(JSONEncoder().encode($0)) }
}

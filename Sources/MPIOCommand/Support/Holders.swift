import ArgumentParser
import Foundation
import MPIO

/// The processes that hold LUNs, asked over their control sockets.
struct Holders {
    var directories = RuntimeDirectory.searchPaths()
    /// A holder answers from memory: what takes longer is broken, or stopped.
    var timeout = Duration.seconds(1)

    /// What every holder says of these LUNs (of all where empty). A holder that does not answer is skipped and named in
    /// `silent`: one that is broken must not hide the others.
    func report(luns: [String]) -> (report: PathsReport, silent: [String]) {
        let clients = ControlClient.discover(directories: directories, timeout: timeout)
        nonisolated(unsafe) var answers = [Result<PathsReport, ControlSocketError>?](repeating: nil, count: clients.count)
        let lock = NSLock()
        nonisolated(unsafe) let asked = clients
        // At one time, so that two that are silent take no longer than one.
        DispatchQueue.concurrentPerform(iterations: clients.count) { index in
            let answer = Result { () throws(ControlSocketError) -> PathsReport in
                guard case .paths(let report) = try asked[index].request(.paths(luns: luns)) else { throw .malformedResponse }
                return report
            }
            lock.withLock { answers[index] = answer }
        }
        var merged = PathsReport()
        var silent: [String] = []
        for (client, answer) in zip(clients, answers) {
            switch answer {
            case .success(let report)?: merged.luns += report.luns
            case .failure(let error)?: silent.append("\(client.path): \(error)")
            case nil: break
            }
        }
        return (merged, silent)
    }

    /// The holder of one LUN, found by name or identity.
    func holder(of lun: String) throws -> ControlClient {
        let clients = ControlClient.discover(directories: directories, timeout: timeout)
        for client in clients {
            guard case .paths(let report)? = try? client.request(.paths(luns: [lun])), !report.luns.isEmpty else { continue }
            return client
        }
        throw CommandFailure("no running process holds '\(lun)'; 'mpio hold' keeps the configured LUNs open")
    }

    /// Asks the holder of a LUN; a refusal is thrown as it came.
    func ask(_ request: ControlRequest, of lun: String) throws -> ControlResponse {
        let response = try holder(of: lun).request(request)
        if case .failed(let failure) = response {
            throw CommandFailure(failure)
        }
        return response
    }
}

/// The holder answered another question.
func unexpected(_ response: ControlResponse) -> CommandFailure {
    CommandFailure("the process that holds the LUN gave an answer that this version does not understand")
}

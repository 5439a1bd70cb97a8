import ArgumentParser
import Foundation
import MPIO

/// The processes that hold LUNs, asked over their control sockets.
struct Holders {
    var directories = RuntimeDirectory.searchPaths()
    /// A holder answers from memory: what takes longer is broken, or stopped.
    var timeout = Duration.seconds(1)
    /// Only processes that were started with this policy file are meant; all where nil.
    var policyFile: String?

    /// A holder that does not answer. One that is broken must not hide the others.
    struct Silent: CustomStringConvertible {
        /// Its socket.
        var path: String
        var error: ControlSocketError

        var description: String { HumanText.printable("\(path): \(error)") }
    }

    struct Found {
        var clients: [ControlClient] = []
        var silent: [Silent] = []
    }

    /// The processes that are meant.
    /// - Parameter except: sockets that are left alone.
    func find(except: Set<String> = []) -> Found {
        let all = ControlClient.find(directories: directories, timeout: timeout, except: except)
        var found = Found(silent: all.silent.map { Silent(path: $0, error: .timedOut) })
        guard let policyFile else {
            found.clients = all.clients
            return found
        }
        let real = Self.realPath(policyFile)
        for (client, answer) in zip(all.clients, Self.ask(all.clients) { _ in .identify }) {
            switch answer {
            case .success(.holder(let report)): if report.policyFile.map(Self.realPath) == real { found.clients.append(client) }
            case .success: break
            case .failure(let error): found.silent.append(Silent(path: client.path, error: error))
            }
        }
        return found
    }

    /// Asks each client its own question, all at one time, so that two that are silent take no longer than one.
    static func ask(
        _ clients: [ControlClient], _ request: (Int) -> ControlRequest
    ) -> [Result<ControlResponse, ControlSocketError>] {
        let lock = NSLock()
        nonisolated(unsafe) let asked = clients
        let requests = clients.indices.map(request)
        nonisolated(unsafe) var answers = [Result<ControlResponse, ControlSocketError>](repeating: .failure(.closed), count: clients.count)
        DispatchQueue.concurrentPerform(iterations: clients.count) { index in
            let answer = Result { () throws(ControlSocketError) -> ControlResponse in try asked[index].request(requests[index]) }
            lock.withLock { answers[index] = answer }
        }
        return answers
    }

    /// What every holder that answers says to one question, and who is silent.
    private func askAll(_ request: ControlRequest) -> (answers: [(client: ControlClient, response: ControlResponse)], silent: [Silent]) {
        let found = find()
        var (answers, silent) = ([(client: ControlClient, response: ControlResponse)](), found.silent)
        for (client, answer) in zip(found.clients, Self.ask(found.clients) { _ in request }) {
            switch answer {
            case .success(let response): answers.append((client, response))
            case .failure(let error): silent.append(Silent(path: client.path, error: error))
            }
        }
        return (answers, silent)
    }

    /// What every holder says of these LUNs (of all where empty). A holder that does not answer is skipped and named in `silent`.
    func report(luns: [String]) -> (report: PathsReport, silent: [Silent]) {
        let (answers, silent) = askAll(.paths(luns: luns))
        let reports = answers.compactMap { if case .paths(let report) = $0.response { report } else { nil } }
        return (PathsReport(luns: reports.flatMap(\.luns)), silent)
    }

    /// Every holder that answers, and who is silent.
    func all() -> (holders: [(ControlClient, HolderReport)], silent: [Silent]) {
        let (answers, silent) = askAll(.identify)
        let holders = answers.compactMap { answer -> (ControlClient, HolderReport)? in
            guard case .holder(let report) = answer.response else { return nil }
            return (answer.client, report)
        }
        return (holders, silent)
    }

    /// The holder of one LUN, found by name or identity.
    func holder(of lun: String) throws -> ControlClient {
        let (answers, silent) = askAll(.paths(luns: [lun]))
        for (client, response) in answers {
            if case .paths(let report) = response, !report.luns.isEmpty { return client }
        }
        throw nobodyHolds(lun, silent: silent)
    }

    /// Asks the holder of a LUN; a refusal is thrown as it came.
    func ask(_ request: ControlRequest, of lun: String) throws -> ControlResponse {
        let response = try holder(of: lun).request(request)
        if case .failed(let failure) = response {
            throw CommandFailure(failure)
        }
        return response
    }

    // MARK: Words

    /// That a LUN, or any at all, has no holder; or that it may have one which does not answer.
    func nobodyHolds(_ lun: String? = nil, silent: [Silent], _ consequence: String = "") -> CommandFailure {
        let what = lun.map { "'\(HumanText.printable($0))'" } ?? "a LUN"
        let file = policyFile.map { " by the policy file \(HumanText.printable($0))" } ?? ""
        guard silent.isEmpty else {
            return CommandFailure("no process that answers holds \(what)\(file)\(consequence); \(silent.map(\.description).joined(separator: "; "))")
        }
        return CommandFailure("no running process holds \(what)\(file)\(consequence); 'mpio hold' keeps the configured LUNs open")
    }

    /// Says on standard error who is silent; what the others say follows.
    static func warn(_ silent: [Silent]) {
        for line in silent { StandardError.write("mpio: \(line)\n") }
    }

    private static func realPath(_ file: String) -> String { URL(fileURLWithPath: file).resolvingSymlinksInPath().path }
}

/// What every command takes that asks the processes which hold LUNs.
struct HolderOptions: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp("Ask only processes that were started with this policy file. They go by what they have read.", valueName: "file"),
        completion: .file(extensions: ["yaml", "yml"]))
    var config: String?

    func holders() throws -> Holders {
        Holders(policyFile: try config.map { try Configuration.search(explicit: $0) })
    }
}

/// The holder answered another question.
func unexpected(_ response: ControlResponse) -> CommandFailure {
    CommandFailure("the process that holds the LUN gave an answer that this version does not understand")
}

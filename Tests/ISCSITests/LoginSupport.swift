import ISCSI

/// Both ends of a login, back to back, and everything that was said.
struct LoginPair {
    enum Outcome {
        case finished(LoginResult, TargetLoginResult)
        case redirected(LoginRedirection)
        case failed(LoginFailure, TargetLoginRefusal?)
    }

    var settings: LoginSettings
    var decision: (TargetLoginIdentity) -> TargetLoginDecision
    var admission: TargetLoginAdmission = .admit(tsih: 0x1234, expCmdSN: 1, maxCmdSN: 32)
    var initiatorCryptography = WireCryptography(seed: 11)
    var targetCryptography = WireCryptography(seed: 22)
    /// May change what the target sends.
    var tamperResponse: (inout PDU, Int) -> Void = { _, _ in }
    var tamperRequest: (inout PDU, Int) -> Void = { _, _ in }

    var identity: TargetLoginIdentity?
    var requests: [PDU] = []
    var responses: [PDU] = []

    init(_ settings: LoginSettings, grant: TargetLoginGrant = TargetLoginGrant()) {
        self.settings = settings
        decision = { _ in .accept(grant) }
    }

    static var settings: LoginSettings {
        var settings = LoginSettings(
            initiatorName: "iqn.2026-11.org.example:host", targetName: "iqn.2026-11.org.example:array",
            isid: .random(0x123456, qualifier: 1))
        settings.initiatorTaskTag = 0x77
        settings.cmdSN = 0xFFFF_FFFF
        settings.connectionID = 3
        settings.skipsSecurityStage = true
        return settings
    }

    mutating func run() -> Outcome {
        var initiator = InitiatorLogin(settings: settings, cryptography: initiatorCryptography)
        var target = TargetLogin(cryptography: targetCryptography, statSN: 0xFFFF_FFFE)
        var action = initiator.start()
        var refusal: TargetLoginRefusal?
        var result: TargetLoginResult?
        while true {
            switch action {
            case .send(var request):
                tamperRequest(&request, requests.count)
                requests.append(request)
                var answer = request.data.withUnsafeBytes { target.received(request.header, data: $0) }
                if case .identify(let identity) = answer {
                    self.identity = identity
                    answer = target.identified(decision(identity))
                }
                if case .establish = answer { answer = target.established(admission) }
                var response: PDU
                switch answer {
                case .send(let pdu): response = pdu
                case .finished(let pdu, let outcome): (response, result) = (pdu, outcome)
                case .refused(let pdu, let why): (response, refusal) = (pdu, why)
                case .failed(let failure): return .failed(failure, nil)
                case .identify, .establish: fatalError("a question follows its answer")
                }
                tamperResponse(&response, responses.count)
                responses.append(response)
                action = response.data.withUnsafeBytes { initiator.received(response.header, data: $0) }
            case .finished(let login):
                guard let result else { return .failed(.unexpectedPDU(.loginResponse), refusal) }
                return .finished(login, result)
            case .redirected(let redirection):
                return .redirected(redirection)
            case .failed(let failure):
                return .failed(failure, refusal)
            }
        }
    }

    /// The value of a key in what the initiator or the target said.
    func requested(_ key: String) -> String? { LoginPair.value(key, in: requests) }
    func responded(_ key: String) -> String? { LoginPair.value(key, in: responses) }

    private static func value(_ key: String, in pdus: [PDU]) -> String? {
        for pdu in pdus {
            if let value = (try? TextParameters(parsing: pdu.data))?[key] { return value }
        }
        return nil
    }
}

extension PDU {
    /// Replaces the text.
    mutating func say(_ text: String) {
        self = PDU(header: header, data: Array(text.utf8))
    }

    /// Adds to the text.
    mutating func add(_ text: String) {
        self = PDU(header: header, data: data + Array(text.utf8))
    }

    mutating func replace(_ key: String, with value: String) {
        guard let parameters = try? TextParameters(parsing: data) else { return }
        self = PDU(
            header: header,
            data: TextParameters.encode(parameters.pairs.map { $0.key == key ? TextPair(key, value) : $0 }))
    }

    mutating func remove(_ key: String) {
        guard let parameters = try? TextParameters(parsing: data) else { return }
        self = PDU(header: header, data: TextParameters.encode(parameters.pairs.filter { $0.key != key }))
    }
}

// Reads a question (see mailauth_test.go) from standard input and writes the answer.
const fs = require('fs')
const question = JSON.parse(fs.readFileSync(0))
const { dkimSign } = require(question.module + '/lib/dkim/sign')
const { dkimVerify } = require(question.module + '/lib/dkim/verify')

async function resolver (name) {
  if (question.records[name]) return [[question.records[name]]]
  throw Object.assign(new Error('no record'), { code: 'ENOTFOUND' })
}

async function verify (message) {
  const { results } = await dkimVerify(message, { resolver })
  const verdicts = {}
  for (const one of results) verdicts[one.selector] = one.status.result
  return verdicts
}

async function sign (message, selector, canonicalization, expires, maxBodyLength) {
  // Without a time it takes two, which differ when a second ends between them.
  const { signatures, errors } = await dkimSign(message, {
    canonicalization,
    signTime: new Date(Date.now() - 7200000),
    expires,
    signatureData: [{ signingDomain: question.domain, selector, privateKey: question.private[selector], canonicalization, maxBodyLength }]
  })
  if (errors.length) throw errors[0].err
  return Buffer.concat([Buffer.from(signatures), message]).toString('base64')
}

async function main () {
  const answers = []
  for (const message of question.messages.map((one) => Buffer.from(one, 'base64'))) {
    if (question.do === 'verify') {
      answers.push(await verify(message))
      continue
    }
    for (const selector of Object.keys(question.private)) {
      if (question.do === 'limit') {
        const soon = new Date(Date.now() + 3600000)
        answers.push(await sign(message, selector, 'relaxed/relaxed', soon), await sign(message, selector, 'relaxed/relaxed', new Date(Date.now() - 3600000)))
        answers.push(await sign(message, selector, 'relaxed/simple', soon, 3))
        continue
      }
      for (const way of ['simple/simple', 'simple/relaxed', 'relaxed/simple', 'relaxed/relaxed']) answers.push(await sign(message, selector, way))
    }
  }
  process.stdout.write(JSON.stringify(answers))
}

main().catch((err) => { console.error(err); process.exitCode = 1 })

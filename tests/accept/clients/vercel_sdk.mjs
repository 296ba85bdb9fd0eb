// The Vercel AI SDK on chat, responses and messages: a tool, a stream, a structured result, a second turn.
import assert from 'node:assert'
import { generateText, Output, stepCountIs, streamText, tool } from 'ai'
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { z } from 'zod'

const url = process.argv[2]
const baseURL = `${url}/v1`
const openai = createOpenAI({ baseURL, apiKey: 'any' })
const models = {
  chat: createOpenAICompatible({ name: 'here', baseURL, apiKey: 'any', supportsStructuredOutputs: true })('q'),
  responses: openai.responses('q'),
  messages: createAnthropic({ baseURL, apiKey: 'any' })('q'),
}
const tools = { add: tool({ description: 'adds', inputSchema: z.object({ a: z.number() }), execute: ({ a }) => a + 1 }) }
const user = (content) => ({ role: 'user', content })

for (const [name, model] of Object.entries(models)) {
  const providerOptions = { openai: { forceReasoning: true, reasoningSummary: 'auto' } }
  const options = { model, tools, providerOptions, maxRetries: 0, stopWhen: stepCountIs(4) }
  const asked = [user('CALL add {"a": 1}\nSAY four')]
  const first = await generateText({ ...options, messages: asked })
  assert.equal(first.text, 'four', name)
  const messages = [...asked, ...first.response.messages, user('CALL add {"a": 2}\nSAY five')]
  const second = streamText({ ...options, messages })
  let text = ''
  for await (const piece of second.textStream) text += piece
  assert.equal(text, 'five', name)
  const schema = z.object({ total: z.number() })
  const prompt = 'JSON {"total": 4}'
  const structured = await generateText({ model, prompt, maxRetries: 0, output: Output.object({ schema }) })
  assert.equal(structured.output.total, 4, name)
  console.log(name, 'thinking:', first.steps.some((step) => Boolean(step.reasoningText)))
}
console.log('ok')
